"""The command `fakevlm`, as a user calls it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import tinyllava
from fakevlm.cli import app, main

RUNNER = CliRunner()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photos" / "photo.png"
    file.parent.mkdir()
    file.write_bytes(tinyllava.records(1)[0].image)
    return file


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `fakevlm` in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["fakevlm", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code or 0


def test_detect_answers_files_and_folders(project: Path, base: Path, photo: Path) -> None:
    shutil.copy(photo, photo.with_name("other.PNG"))
    photo.with_name("notes.txt").write_text("no image")
    done = RUNNER.invoke(app, ["detect", str(photo), str(photo.parent), "--model", str(base), "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["photo.png", "other.PNG", "photo.png"]
    assert all(set(row) == {"path", "verdict", "p_fake", "text"} and 0 <= row["p_fake"] <= 1 for row in rows)
    assert rows[0] == rows[2]
    assert not (project / "artifacts").exists()
    assert not (project / "runs").exists()


def test_detect_names_bad_files_and_answers_the_others(project, base, photo, monkeypatch) -> None:
    monkeypatch.chdir(photo.parent)
    Path("broken.jpg").write_text("not an image")
    Path("empty").mkdir()
    errors = {"broken.jpg": "not a readable image", "none.png": "no such file", " ": "name is empty"}
    errors |= {"https://example.com/a.jpg": "download the image", "empty": "holds no image"}
    errors |= dict.fromkeys(["red\x1b[31m", "~nobody-here/a.jpg"], "no such file")
    errors["x" * 300] = "name too long"
    errors["pipe.jpg"] = "neither a file nor a folder"
    os.mkfifo("pipe.jpg")
    arguments = ["detect", *errors, str(photo), "--model", str(base)]
    done = RUNNER.invoke(app, arguments)
    assert done.exit_code == 2
    assert f"{photo}: " in done.stdout
    *refused, answer = map(json.loads, RUNNER.invoke(app, [*arguments, "--json"]).stdout.splitlines())
    assert answer["path"] == str(photo)
    for row, (name, error) in zip(refused, errors.items(), strict=True):
        assert (row.keys(), row["path"], error in row["error"]) == ({"path", "error"}, name, True)
        assert f"{name}: {row['error']}".replace("\x1b", "\ufffd") in done.stderr


def test_detect_says_that_weights_are_not_right(project, base, photo, monkeypatch, capsys) -> None:
    damaged = shutil.copytree(base, project / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    name = "language_model.lm_head.weight"
    broken = tensors | {name: tensors[name] * float("nan")}
    save_file(broken, damaged / "model.safetensors", metadata={"format": "pt"})
    assert call(monkeypatch, "detect", str(photo), "--model", str(damaged)) == 1
    assert "lm_head.weight in" in capsys.readouterr().err
    tensors["strange.weight"] = tensors.pop(next(name for name in tensors if "projector" in name))
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    assert call(monkeypatch, "detect", str(photo), "--model", str(damaged)) == 1
    message = capsys.readouterr().err
    assert "1 missing (model.multi_modal_projector" in message
    assert "1 unexpected (strange.weight)" in message
    (damaged / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert call(monkeypatch, "detect", str(photo), "--model", str(damaged)) == 1
    assert "no model could be loaded" in capsys.readouterr().err
    assert call(monkeypatch, "detect", str(photo)) == 1
    assert "dvc repro finetune@explanation" in capsys.readouterr().err


MISTAKES = [["verify", "nonsense"], ["estimate", "annotate", "--rate", "-1"], ["persons", "params.yaml"]]
MISTAKES += [["persons", "."], ["stage", "tiny", "benchmark"], ["unpack", "~nosuchuser/a.zip", "b"]]
MISTAKES += [["detect", "a.png", "--model", "~nosuchuser"]]


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_ends_in_one_sentence(project, monkeypatch, capsys, arguments: list[str]) -> None:
    monkeypatch.chdir(project)
    assert call(monkeypatch, *arguments) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message

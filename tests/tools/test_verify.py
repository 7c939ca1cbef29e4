"""The catalogue and `verify`: the miniature is complete; what is missing is named with where to get it."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from fakevlm.data.corpora import ffpp
from fakevlm.data.corpora.files import SOURCES
from fakevlm.errors import UserError
from fakevlm.tools.verify import COMPLETE, INCOMPLETE, Report, catalogue, lines, main, verify
from smallcorpora import make_release


@pytest.fixture
def data(project: Path) -> Path:
    """A project whose data/ is the embedded miniature."""
    (project / "data").mkdir()
    for folder in (ROOT / "embedded").iterdir():
        (project / "data" / folder.name).symlink_to(folder)
    return project / "data"


def copied(data: Path, key: str) -> Path:
    """The corpus's folder, its files now single links: something may be taken away."""
    (data / key).unlink()
    shutil.copytree(ROOT / "embedded" / key, data / key, copy_function=lambda s, d: Path(d).symlink_to(s))
    return data / key


def report(key: str, data: Path) -> Report:
    return verify(key, data / key, data / "ffpp")


def text(key: str, data: Path) -> str:
    return "\n".join(lines(report(key, data)))


def test_the_miniature_is_complete_and_everything_is_counted(data: Path, capsys) -> None:
    assert main([], "mini") == COMPLETE
    output = capsys.readouterr().out
    for line in ("9 of 9 complete; not checked: fakeclue", "found 80; the full corpus has 1,000"):
        assert line in output
    assert "MISSING" not in output
    for key, corpus in catalogue().items():
        if (data / key).is_dir():
            assert set(report(key, data).counts) == set(corpus.counts), key


# What is taken away from a corpus, and how the report names it.
GONE = [
    ("genimage", "GLIDE", "GLIDE/val/nature"),
    ("ffpp", "manipulated_sequences/FaceSwap", "manipulated_sequences/FaceSwap/c23/videos"),
    ("vigor", "Seattle", "Seattle/satellite"),
    ("m6doc", "annotations/instances_test2017.json", "annotations/instances_test2017.json"),
    ("loki", "image/medicine", "image/medicine/"),
    ("dmimage", "eg3d", "EG3D: one of eg3d"),
]


@pytest.mark.parametrize(("key", "gone", "named"), GONE)
def test_missing_folders_and_files_are_named(data: Path, key: str, gone: str, named: str) -> None:
    place = copied(data, key) / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert not report(key, data).complete
    output = text(key, data)
    assert any(named in line for line in output.splitlines() if "MISSING" in line)
    assert f"cure     {SOURCES[key].get}" in output


def test_single_files_that_lists_name_are_missed(data: Path) -> None:
    first, second = ffpp.pairs(data / "ffpp", "test")[0]
    (copied(data, "ffpp") / f"manipulated_sequences/Face2Face/c23/videos/{second}_{first}.mp4").unlink()
    assert f"{second}_{first}, of videos of test.json, Face2Face" in text("ffpp", data)
    for key, folder in (("cvusa", "bingmap/19"), ("m6doc", "train2017")):
        file = next((copied(data, key) / folder).iterdir())
        file.unlink()
        assert f"MISSING  {folder}/{file.name}" in text(key, data)
    for video in (data / "ffpp/manipulated_sequences/Deepfakes/c23/videos").iterdir():
        video.unlink()
    assert "MISSING  Deepfakes " in text("ddvqa", data)
    assert "more, of videos of train_set in FaceForensics++" in text("ddvqa", data)


def test_problems_are_reported_and_no_crash(data: Path) -> None:
    file = copied(data, "loki") / "data_json/image/true_or_false.json"
    file.unlink()
    file.write_text("[{")
    assert "true_or_false.json is not readable JSON" in text("loki", data)
    assert not report("loki", data).complete
    shutil.rmtree(copied(data, "chameleon") / "test/0_real")
    (data / "chameleon/test/0_real").mkdir()
    assert "MISSING  test/0_real (there, but no images in it)" in text("chameleon", data)


def test_genimage_may_be_unpacked_under_other_names_or_still_packed(data: Path) -> None:
    (copied(data, "genimage") / "ADM").rename(data / "genimage/imagenet_ai_0508_adm")
    assert report("genimage", data).complete
    shutil.rmtree(data / "genimage/imagenet_ai_0508_adm")
    (data / "genimage/imagenet_ai_0508_adm.zip").write_bytes(b"PK")
    assert "still packed: imagenet_ai_0508_adm.zip; `fakevlm unpack" in text("genimage", data)


def test_the_command_checks_folders_that_the_profile_does_not_name(data: Path, capsys) -> None:
    root = data / "release"
    make_release(root)
    assert main([f"fakeclue={root}"], None) == COMPLETE
    assert "fake images in train: found 18; the full corpus has 68,396" in capsys.readouterr().out
    rows = json.loads((root / "data_json/test.json").read_text())
    rows[0]["image"] = "satellite/real/nowhere.jpg"
    (root / "data_json/test.json").write_text(json.dumps(rows))
    assert main([f"fakeclue={root}", "vigor"], None) == INCOMPLETE
    output = capsys.readouterr().out
    what = f"of images of test.json in {root}/test.zip/"
    assert f"MISSING  satellite/real/nowhere.jpg, {what} (11 there)" in output
    assert "1 of 2 complete" in output
    assert main(["fakeclue"], None) == INCOMPLETE
    assert "check a folder with `fakeclue=FOLDER`" in capsys.readouterr().out
    assert main(["vigor=/nowhere/at/all"], None) == INCOMPLETE
    assert "MISSING  no folder /nowhere/at/all" in capsys.readouterr().out
    with pytest.raises(UserError, match="no corpus 'genimages'"):
        main(["genimages"], None)

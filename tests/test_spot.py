"""The check of a user's own image: `python -m fakevlm.detect photo.jpg`."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyllava
from fakevlm import detect as spot
from fakevlm.data.records import write_records


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return tinyllava.build(tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(file)
    return file


def _spot(project: Path, weights: Path, *arguments: str) -> int:
    text = (project / "params.yaml").read_text()
    text = text.replace(
        "model: null                   # FakeVLM", f"model: {json.dumps(str(weights))}  # FakeVLM"
    )
    (project / "params.yaml").write_text(text)
    return spot.main(arguments)


def test_spot_answers_about_images(project: Path, weights: Path, photo: Path, capsys) -> None:
    assert _spot(project, weights, str(photo), str(photo)) == 0
    lines = capsys.readouterr().out
    assert lines.count(f"{photo}: ") == 2
    assert "P(fake) = 0." in lines
    assert not (project / "artifacts").exists()
    assert not (project / "runs").exists()


def test_spot_says_what_is_wrong(project: Path, weights: Path, photo: Path, capsys) -> None:
    assert spot.main([str(photo)]) == 2
    assert "dvc repro finetune@explanation" in capsys.readouterr().err
    broken = photo.with_name("broken.jpg")
    broken.write_bytes(b"not an image")
    assert _spot(project, weights, str(broken)) == 2
    assert "not an image" in capsys.readouterr().err
    truncated = photo.with_name("truncated.png")
    truncated.write_bytes(photo.read_bytes()[:200])
    assert _spot(project, weights, str(truncated)) == 2
    assert "truncated.png is not an image" in capsys.readouterr().err
    assert _spot(project, weights, str(photo.with_name("none.png"))) == 2
    assert "no image" in capsys.readouterr().err
    assert _spot(project, weights, str(photo.parent)) == 2
    assert "not an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "said", "cure"),
    [
        ("https://example.com/a.jpg", "https://example.com/a.jpg is an address", "download it first"),
        ("", "an empty name is no image", "name an image file"),
        (" ", "an empty name is no image", "name an image file"),
    ],
)
def test_spot_says_what_is_no_file(argument: str, said: str, cure: str, capsys) -> None:
    assert spot.main([argument]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert cure in told


def test_spot_takes_large_photographs_without_a_warning(
    project: Path, weights: Path, photo: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # the photo has 2,500, and at 4,000 it is an error
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert _spot(project, weights, str(photo)) == 0
    assert [w for w in warned if issubclass(w.category, Image.DecompressionBombWarning)] == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    capsys.readouterr()
    assert _spot(project, weights, str(photo)) == 2
    assert "exceeds limit of 2000 pixels" in capsys.readouterr().err


def test_spot_turns_photographs_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # held on its side
    image.save(tmp_path / "side.jpg", exif=exif)
    assert spot.read_image(tmp_path / "side.jpg").size == (20, 40)


def test_spot_takes_the_first_test_image_by_default(project: Path) -> None:
    records = tinyllava.records(4)[1:]
    write_records(records, project / "artifacts/annotate/fakeclue/test")
    name, image = spot.first_test_image()
    assert name == f"{records[0].id} (in truth real)"
    assert image.tobytes() == records[0].pil().tobytes()

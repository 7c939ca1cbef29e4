"""The reader of the released FakeClue, on a tiny one in the release's own format: two JSONs, two zips."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakevlm.data.corpora import fakeclue
from fakevlm.data.corpora.files import Quarantine
from fakevlm.data.records import FAKE, FAKECLUE_QUESTION, REAL, Record, to_fakeclue_row
from fakevlm.errors import UserError


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(
        out, "PNG"
    )
    return out.getvalue()


TRAIN = [
    ("ff++/fake/Deepfakes/c23/frames/033_097/012.png", FAKE, "deepfake"),
    ("ff++/real/youtube/c23/frames/033/004.png", REAL, "deepfake"),
    ("genimage/fake/416_adm_45.PNG", FAKE, "animal"),
    ("doc/fake/magazine_ch_2/7.png", FAKE, "doc"),
]
TEST = [("satellite/real/41.8,-87.6_mbev.jpg", REAL, "satellite"), ("chameleon/fake/0b5a.jpg", FAKE, "scene")]


def row(path: str, label: int, category: str, seed: int) -> dict:
    word = "real" if label == REAL else "fake"
    record = Record(path, picture(seed), label, "x", path, category, width=24, height=16)
    return to_fakeclue_row(record, f"This is a {word} image. Clue {seed}; another")


def release(root: Path, prefix: str = "", zipped: bool = True, method: int = zipfile.ZIP_STORED) -> None:
    (root / "data_json").mkdir(parents=True)
    for split, images in (("train", TRAIN), ("test", TEST)):
        listed = [row(*image, seed) for seed, image in enumerate(images)]
        (root / f"data_json/{split}.json").write_text(json.dumps(listed))
        if zipped:
            with zipfile.ZipFile(root / f"{split}.zip", "w", method) as archive:
                for seed, (path, _, _) in enumerate(images):
                    archive.writestr(prefix + path, picture(seed))
        else:
            for seed, (path, _, _) in enumerate(images):
                file = root / prefix / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(picture(seed))


def edit(root: Path, split: str, change) -> None:
    file = root / f"data_json/{split}.json"
    listed = json.loads(file.read_text())
    change(listed)
    file.write_text(json.dumps(listed))


def test_records_of_both_splits_straight_from_the_zips(tmp_path: Path) -> None:
    release(tmp_path)
    quarantine = Quarantine()
    records = list(fakeclue.read(tmp_path, quarantine))
    assert [(r.id, r.label, r.category, r.split) for r in records] == [
        *((*image, "train") for image in TRAIN),
        *((*image, "test") for image in TEST),
    ]
    assert [r.image for r in records] == [picture(n) for n in (0, 1, 2, 3, 0, 1)]
    assert records[1].references == ["This is a real image. Clue 1; another"]
    assert {(r.width, r.height, r.question) for r in records} == {(24, 16, FAKECLUE_QUESTION)}
    assert [(r.source, r.generator, r.item) for r in records[:3]] == [
        ("ff++", "Deepfakes", "033"),
        ("ff++", None, "033"),
        ("genimage", "adm", "genimage/fake/416_adm_45.PNG"),
    ]
    assert quarantine.rows == []
    assert [r.id for r in fakeclue.read(tmp_path, splits=["test"])] == [path for path, _, _ in TEST]


@pytest.mark.parametrize("prefix", ["train/", "FakeClue/images/"])
def test_images_may_lie_in_a_folder_of_the_zip(tmp_path: Path, prefix: str) -> None:
    release(tmp_path, prefix)
    records = list(fakeclue.read(tmp_path))
    assert [r.image for r in records] == [picture(n) for n in (0, 1, 2, 3, 0, 1)]


@pytest.mark.parametrize("folder", ["", "split"])
def test_unpacked_images_give_the_same_records(tmp_path: Path, folder: str) -> None:
    release(tmp_path / "zipped")
    release(tmp_path / "folder", zipped=False)
    if folder:
        for split, images in (("train", TRAIN), ("test", TEST)):
            for path, _, _ in images:
                target = tmp_path / "folder" / split / path
                target.parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "folder" / path).rename(target)
    assert list(fakeclue.read(tmp_path / "folder")) == list(fakeclue.read(tmp_path / "zipped"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_entries_are_quarantined_and_counted(tmp_path: Path, method: int) -> None:
    release(tmp_path, method=method)
    file = tmp_path / "train.zip"
    with zipfile.ZipFile(file) as archive:
        at = archive.getinfo(TRAIN[2][0])
        start = at.header_offset + 30 + len(at.filename)
    raw = bytearray(file.read_bytes())
    raw[start] ^= 0xFF  # one byte of one image: its checksum no longer fits, or it no longer inflates
    file.write_bytes(raw)

    def change(listed: list) -> None:
        listed[0]["image"] = "genimage/fake/nowhere.png"
        listed[3]["label"] = 2
        listed += ["not a row", {"image": "x.png"}, row("../../secret.png", FAKE, "doc", 0)]

    edit(tmp_path, "train", change)
    quarantine = Quarantine()
    records = list(fakeclue.read(tmp_path, quarantine, ["train"]))
    assert [r.id for r in records] == [TRAIN[1][0]]
    assert [(path.split(": ")[0], reason.split(" (")[0]) for _, path, reason in quarantine.rows] == [
        ("train.json, row 0", "named in the JSON but missing"),
        ("train.json, row 2", "damaged in train.zip"),
        ("train.json, row 3", "not a FakeClue row"),
        ("train.json, row 4", "not a FakeClue row"),
        ("train.json, row 5", "not a FakeClue row"),
        ("train.json, row 6", "not a FakeClue row"),
    ]
    assert len(quarantine.frame()) == 6


def test_an_entry_too_large_for_an_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(tmp_path)
    monkeypatch.setattr(fakeclue, "_LARGEST", 100)
    quarantine = Quarantine()
    assert list(fakeclue.read(tmp_path, quarantine)) == []
    assert {reason for _, _, reason in quarantine.rows} == {
        "more than 100 bytes in train.zip",
        "more than 100 bytes in test.zip",
    }


def test_a_path_out_of_the_folder_is_never_read(tmp_path: Path) -> None:
    release(tmp_path / "release", zipped=False)
    (tmp_path / "secret.png").write_bytes(picture(9))
    edit(tmp_path / "release", "test", lambda listed: listed.append(row("../secret.png", FAKE, "doc", 9)))
    quarantine = Quarantine()
    assert len(list(fakeclue.read(tmp_path / "release", quarantine, ["test"]))) == 2
    assert "row 2" in quarantine.rows[0][1]


def test_what_is_missing_altogether_is_an_error_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lingcco/FakeClue"):
        list(fakeclue.read(tmp_path / "nowhere"))
    release(tmp_path)
    (tmp_path / "test.zip").unlink()
    with pytest.raises(UserError, match=r"no test\.zip and no unpacked images of test"):
        list(fakeclue.read(tmp_path, splits=["test"]))
    (tmp_path / "train.zip").write_bytes(b"half a downl")
    with pytest.raises(UserError, match=r"train\.zip is not a readable zip"):
        list(fakeclue.read(tmp_path, splits=["train"]))
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(UserError, match=r"holds none of the images that train\.json names"):
        list(fakeclue.read(tmp_path, splits=["train"]))
    (tmp_path / "data_json/train.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match="holds no list"):
        list(fakeclue.read(tmp_path))


def test_what_annotate_writes_is_read_back(tmp_path: Path) -> None:
    release(tmp_path, zipped=False)
    written = [to_fakeclue_row(r, r.references[0]) for r in fakeclue.read(tmp_path, splits=["train"])]
    assert written == json.loads((tmp_path / "data_json/train.json").read_text())


def test_an_unpacking_that_was_interrupted_hides_no_zip(tmp_path: Path) -> None:
    release(tmp_path)
    whole = list(fakeclue.read(tmp_path, Quarantine()))
    file = tmp_path / "train" / TRAIN[0][0]
    file.parent.mkdir(parents=True)
    file.write_bytes(picture(0))
    quarantine = Quarantine()
    assert list(fakeclue.read(tmp_path, quarantine)) == whole
    assert quarantine.rows == []

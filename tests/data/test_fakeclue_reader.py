"""The reader of the released FakeClue, on a tiny one in the release's own format: two JSONs, two zips."""

import json
import zipfile
from pathlib import Path

import pytest

from fakevlm.data.corpora import fakeclue
from fakevlm.data.records import FAKE, FAKECLUE_QUESTION, REAL, Record, to_fakeclue_row
from fakevlm.errors import UserError
from smallcorpora import parted, picture, put

TRAIN = [
    ("ff++/fake/Deepfakes/c23/frames/033_097/012.png", FAKE, "deepfake"),
    ("ff++/real/youtube/c23/frames/033/004.png", REAL, "deepfake"),
    ("genimage/fake/416_adm_45.PNG", FAKE, "animal"),
    ("doc/fake/magazine_ch_2/7.png", FAKE, "doc"),
]
TEST = [("satellite/real/41.8,-87.6_mbev.jpg", REAL, "satellite"), ("chameleon/fake/0b5a.jpg", FAKE, "scene")]
SPLITS = {"train": TRAIN, "test": TEST}
PICTURES = [picture(n, "PNG") for n in (0, 1, 2, 3, 0, 1)]


def row(path: str, label: int, category: str, seed: int) -> dict:
    word = "real" if label == REAL else "fake"
    record = Record(path, b"", label, "x", category=category, width=30, height=20)
    return to_fakeclue_row(record, f"This is a {word} image. Clue {seed}; another")


def release(root: Path, prefix: str = "", zipped: bool = True, method: int = zipfile.ZIP_STORED) -> Path:
    for split, images in SPLITS.items():
        rows, folder = [row(*image, seed) for seed, image in enumerate(images)], prefix.format(split=split)
        files = {folder + path: picture(seed, "PNG") for seed, (path, _, _) in enumerate(images)}
        put(root, {f"data_json/{split}.json": json.dumps(rows)} | ({} if zipped else files))
        if zipped:
            with zipfile.ZipFile(root / f"{split}.zip", "w", method) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
    return root


def test_records_of_both_splits_straight_from_the_zips(tmp_path: Path) -> None:
    records, unusable = parted(fakeclue.read(release(tmp_path)))
    assert unusable == []
    expected = [(*image, split) for split, images in SPLITS.items() for image in images]
    assert [(r.id, r.label, r.category, r.split) for r in records] == expected
    assert [r.image for r in records] == PICTURES
    assert records[1].references == ["This is a real image. Clue 1; another"]
    assert {(r.width, r.height, r.question) for r in records} == {(30, 20, FAKECLUE_QUESTION)}
    assert [(r.source, r.generator, r.group) for r in records[:3]] == [
        ("ff++", "Deepfakes", "033"), ("ff++", None, "033"),
        ("genimage", "adm", "genimage/fake/416_adm_45.PNG"),
    ]  # fmt: skip
    assert [r.id for r in fakeclue.read(tmp_path, splits=["test"])] == [path for path, _, _ in TEST]
    written = [to_fakeclue_row(r, r.references[0]) for r in records if r.split == "train"]
    assert written == json.loads((tmp_path / "data_json/train.json").read_text()), "annotate writes the same"


def test_images_in_a_folder_of_the_zip_or_unpacked_give_the_same_records(tmp_path: Path) -> None:
    expected = list(fakeclue.read(release(tmp_path / "zipped")))
    for prefix in ("train/", "FakeClue/images/"):
        assert list(fakeclue.read(release(tmp_path / prefix, prefix))) == expected
    for prefix in ("", "{split}/"):
        root = release(tmp_path / f"unpacked {len(prefix)}", prefix, zipped=False)
        assert list(fakeclue.read(root)) == expected
    put(tmp_path / "zipped/train", {TRAIN[0][0]: PICTURES[0]})
    assert list(fakeclue.read(tmp_path / "zipped")) == expected, "an interrupted unpacking hides no zip"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_entries_and_rows_are_unusable(tmp_path: Path, method: int) -> None:
    file = release(tmp_path, method=method) / "train.zip"
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(TRAIN[2][0])
    raw = bytearray(file.read_bytes())
    # One byte of one image: its checksum no longer fits, or it no longer inflates.
    raw[entry.header_offset + 30 + len(entry.filename)] ^= 0xFF
    file.write_bytes(raw)

    listed = tmp_path / "data_json/train.json"
    rows = json.loads(listed.read_text())
    rows[0]["image"] = "genimage/fake/nowhere.png"
    rows[3]["label"] = 2
    put(tmp_path.parent, {"secret.png": PICTURES[0]})
    good = row(TRAIN[0][0], FAKE, "doc", 0)
    rows += ["not a row", {"image": "x.png"}, row("../secret.png", FAKE, "doc", 0)]
    rows += [good | {"label": label} for label in (True, 1.0, "1", None, REAL)]  # it says fake
    rows += [good | {"image": name} for name in ("/etc/passwd", "a\0.png", "x" * 300, None, "..\\x.png")]
    question, answer = good["conversations"]
    wrong = ({"value": None}, {"value": 5}, {"value": "The image appears to be real."}, {"from": "human"})
    talks = [[question], [question, answer] * 2, *([question, answer | change] for change in wrong)]
    rows += [good | {"conversations": talk} for talk in talks]
    listed.write_text(json.dumps(rows))
    records, unusable = parted(fakeclue.read(tmp_path, splits=["train"]))
    assert [r.id for r in records] == [TRAIN[1][0]]
    assert [(problem.path.split(": ")[0], problem.reason.split(" (")[0]) for problem in unusable] == [
        ("train.json, row 0", "named in the JSON but missing"),
        ("train.json, row 2", "damaged"),
        *((f"train.json, row {n}", "not a FakeClue row") for n in range(3, 23)),
    ]


def test_an_entry_too_large_for_an_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakeclue, "_LARGEST", 100)
    records, unusable = parted(fakeclue.read(release(tmp_path)))
    assert records == []
    assert {problem.reason for problem in unusable} == {"more than 100 bytes in the zip"}


def test_what_is_missing_altogether_is_an_error_with_its_cure(tmp_path: Path) -> None:
    def fails(problem: str, split: str = "train", root: Path = tmp_path) -> None:
        with pytest.raises(UserError, match=problem):
            list(fakeclue.read(root, splits=[split]))

    fails("lingcco/FakeClue", root=tmp_path / "nowhere")
    (release(tmp_path) / "test.zip").unlink()
    fails(r"no test\.zip and no unpacked images of test", "test")
    (tmp_path / "train.zip").write_bytes(b"half a downl")
    fails(r"train\.zip is not a readable zip")
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    fails(r"holds none of the images that train\.json names")
    put(tmp_path, {"data_json/train.json": '{"rows": []}'})
    fails("holds no list")

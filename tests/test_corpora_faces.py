"""FaceForensics++ and DD-VQA: videos, extracted frames, official splits, questions about frames."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fakevlm.data.corpora import ddvqa, ffpp
from fakevlm.data.corpora.files import BadImage, Quarantine
from fakevlm.data.corpora.video import frames, numbers, png, spaced
from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError


def film(file: Path, n: int, colour: int = 0) -> None:
    """A video of `n` frames that grow brighter; those of another colour differ in their left half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(n):
            pixels = np.full((32, 32, 3), 20 + 200 * k // max(1, n - 1), np.uint8)
            pixels[:, :16, 0] = (pixels[:, :16, 0].astype(int) + colour) % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


def brightness(data: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(data))).mean())


def tree(root: Path) -> None:
    splits = {"train": [["000", "003"]], "val": [], "test": [["007", "002"]]}
    for split, pairs in splits.items():
        file = root / "splits" / f"{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(pairs))
    for n, video in enumerate(("000", "003", "007", "002")):
        film(root / f"original_sequences/youtube/c23/videos/{video}.mp4", 9, 16 * n)
    for m, method in enumerate(ffpp.METHODS):
        for n, video in enumerate(("000_003", "007_002")):
            film(root / f"manipulated_sequences/{method}/c23/videos/{video}.mp4", 5, 64 + 16 * (2 * m + n))


def test_spaced() -> None:
    assert spaced(9, 3) == [0, 4, 8]
    assert spaced(2, 5) == [0, 1]
    assert spaced(5, 1) == [0]
    assert spaced(0, 3) == []


def test_extracted_frames_are_taken_by_number_and_an_empty_folder_hides_no_video(tmp_path: Path) -> None:
    place = tmp_path / "original_sequences/youtube/c23"
    (place / "frames/000").mkdir(parents=True)
    for number in (5, 48, 999, 1000, 1499):
        Image.new("RGB", (8, 8)).save(place / f"frames/000/{number:03d}.png")
    assert [name for name, _ in ffpp.video_frames(tmp_path, None, "000", 3)] == [
        "005.png",
        "999.png",
        "1499.png",
    ]
    (place / "frames/003").mkdir()
    film(place / "videos/003.mp4", 9)
    assert len(ffpp.video_frames(tmp_path, None, "003", 3)) == 3


def test_frames_that_are_not_drawn_are_not_looked_at(tmp_path: Path) -> None:
    film(tmp_path / "original_sequences/youtube/c23/videos/000.mp4", 9)
    looked = []

    def crop(pixels: np.ndarray, _: Path) -> np.ndarray:
        looked.append(pixels)
        return pixels

    one = ffpp.frame_id(None, "000", "004.png")
    found = ffpp.video_frames(tmp_path, None, "000", 3, crop=crop, drawn=lambda id: id == one)
    assert found == [ffpp.video_frames(tmp_path, None, "000", 3)[1]]
    assert len(looked) == 1
    assert ffpp.video_frames(tmp_path, None, "000", 3, crop=crop, drawn=lambda id: False) == []


def test_frames_are_evenly_spaced_over_the_video(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 9)
    found = frames(tmp_path / "a.mp4", numbers(tmp_path / "a.mp4", 3))
    assert [number for number, _ in found] == [0, 4, 8]
    assert [brightness(data) for _, data in found] == pytest.approx([20, 120, 220], abs=4)
    assert found == frames(tmp_path / "a.mp4", numbers(tmp_path / "a.mp4", 3)), "the same bytes every time"


def test_ffpp_reads_videos_methods_and_splits(tmp_path: Path) -> None:
    tree(tmp_path)
    records = list(ffpp.read(tmp_path, 2))
    assert len(records) == 2 * (4 + 4 * 2)
    first = records[0]
    assert first.id == "ff++/real/youtube/c23/frames/000/000.png"
    assert (first.label, first.item, first.split, first.generator) == (REAL, "000", "train", None)
    last = records[-1]
    assert last.id == "ff++/fake/NeuralTextures/c23/frames/007_002/004.png"
    assert (last.label, last.item, last.split, last.generator) == (FAKE, "007", "test", "NeuralTextures")
    assert {r.category for r in records} == {"deepfake"}
    assert first.image[:8] == b"\x89PNG\r\n\x1a\n"
    by_item = {}
    for r in records:
        by_item.setdefault(r.item, set()).add(r.split)
    assert all(len(splits) == 1 for splits in by_item.values())


def test_ffpp_prefers_extracted_frames(tmp_path: Path) -> None:
    tree(tmp_path)
    folder = tmp_path / "original_sequences/youtube/c23/frames/000"
    folder.mkdir(parents=True)
    wanted = png(np.full((8, 8, 3), 77, np.uint8))
    for n in (0, 12, 25):
        (folder / f"{n:03d}.png").write_bytes(wanted)
    records = [r for r in ffpp.read(tmp_path, 2) if r.item == "000" and r.label == REAL]
    assert [r.id.rsplit("/", 1)[1] for r in records] == ["000.png", "025.png"]
    assert records[0].image == wanted


def test_broken_videos_are_quarantined(tmp_path: Path) -> None:
    tree(tmp_path)
    videos = tmp_path / "original_sequences/youtube/c23/videos"
    (videos / "000.mp4").write_bytes((videos / "000.mp4").read_bytes()[:300])
    (videos / "003.mp4").write_bytes(b"")
    quarantine = Quarantine()
    records = list(ffpp.read(tmp_path, 2, quarantine))
    assert {r.item for r in records if r.label == REAL} == {"002", "007"}
    assert [path for _, path, _ in quarantine.rows] == [
        "original_sequences/youtube/c23/videos/000.mp4",
        "original_sequences/youtube/c23/videos/003.mp4",
    ]
    with pytest.raises(BadImage):
        frames(videos / "003.mp4", [0])


def test_ffpp_names_what_is_missing(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "splits/val.json").unlink()
    with pytest.raises(UserError, match=r"val\.json"):
        list(ffpp.read(tmp_path, 1))
    (tmp_path / "splits/val.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="not a list of pairs"):
        list(ffpp.read(tmp_path, 1))
    (tmp_path / "splits/val.json").write_text("[]")
    film(tmp_path / "original_sequences/youtube/c23/videos/999.mp4", 2)
    with pytest.raises(UserError, match="video 999"):
        list(ffpp.read(tmp_path, 1))
    with pytest.raises(UserError, match="FaceForensics"):
        list(ffpp.read(tmp_path / "nowhere", 1))


def test_ffpp_wants_every_method(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "manipulated_sequences/FaceSwap").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="FaceSwap"):
        list(ffpp.read(tmp_path, 1))


def ddvqa_tree(root: Path) -> None:
    entry = {
        str(n): {"question": f"Q{n}?", "answer": [f"The image looks fake. A{n}.", "The image looks fake. B."]}
        for n in (0, 1, 2, 10)
    }
    content = {
        "Deepfakes": {"0_007_002": entry},
        "FaceShifter": {"2_007_002": {"0": entry["0"]}},
        "Neuraltexture": {"6_007_002": {"0": entry["0"]}},
        "Original": {"5_002": {"0": {"question": "Q?", "answer": ["The image looks real."]}}},
    }
    for method, entries in content.items():
        file = root / "test_set" / method / f"{method}.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(entries))


def test_ddvqa_asks_one_question_a_frame_in_order(tmp_path: Path) -> None:
    tree(tmp_path / "ffpp")
    ddvqa_tree(tmp_path / "ddvqa")
    quarantine = Quarantine()
    records = list(ddvqa.read(tmp_path / "ddvqa", tmp_path / "ffpp", 3, quarantine=quarantine))
    fake = "ff++/fake/Deepfakes/c23/frames/007_002"
    assert [r.id for r in records] == [
        f"{fake}/000.png#0",
        f"{fake}/002.png#1",
        f"{fake}/004.png#2",
        f"{fake}/000.png#10",  # more questions than frames: from the first again; 10 comes after 2
        "ff++/fake/NeuralTextures/c23/frames/007_002/000.png#0",
        "ff++/real/youtube/c23/frames/002/000.png#0",
    ]
    assert records[1].question == "Q1?"
    assert records[1].references == ["The image looks fake. A1.", "The image looks fake. B."]
    assert [r.label for r in records] == [FAKE] * 5 + [REAL]
    assert [r.generator for r in records[-2:]] == ["NeuralTextures", None]
    frame = {r.id: r.image for r in ffpp.read(tmp_path / "ffpp", 3)}
    assert all(frame[r.path] == r.image for r in records)
    assert quarantine.rows == [
        ("ff++", "manipulated_sequences/FaceShifter/c23/videos/007_002.mp4", "video missing")
    ]


def test_ddvqa_inside_its_repository_folder(tmp_path: Path) -> None:
    tree(tmp_path / "ffpp")
    ddvqa_tree(tmp_path / "ddvqa/DQ_FF++")
    assert len(list(ddvqa.read(tmp_path / "ddvqa", tmp_path / "ffpp", 1))) == 6


def test_ddvqa_names_a_bad_entry(tmp_path: Path) -> None:
    tree(tmp_path / "ffpp")
    ddvqa_tree(tmp_path / "ddvqa")
    file = tmp_path / "ddvqa/test_set/Original/Original.json"
    file.write_text(json.dumps({"9_002": {}}))
    with pytest.raises(UserError, match="9_002"):
        list(ddvqa.read(tmp_path / "ddvqa", tmp_path / "ffpp", 1))
    file.write_text(json.dumps({"5_002": {"0": {"question": "Q?"}}}))
    with pytest.raises(UserError, match="not questions with answers"):
        list(ddvqa.read(tmp_path / "ddvqa", tmp_path / "ffpp", 1))
    with pytest.raises(UserError, match="train_set"):
        list(ddvqa.read(tmp_path / "ddvqa", tmp_path / "ffpp", 1, split="train"))

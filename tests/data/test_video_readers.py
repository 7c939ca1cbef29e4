"""FaceForensics++ and DD-VQA: videos, extracted frames, official splits, questions about frames."""

import io
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from fakevlm.data.corpora import ddvqa, ffpp
from fakevlm.data.corpora.ffpp import frames, numbers, spaced
from fakevlm.data.records import FAKE, REAL, encode
from fakevlm.errors import UserError
from smallcorpora import ddvqa_tree, ffpp_tree, film, parted, put

VIDEOS = "original_sequences/youtube/c23/videos"
FRAMES = "original_sequences/youtube/c23/frames"


def test_frames_are_evenly_spaced_over_the_video(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 9)
    assert (numbers(tmp_path / "a.mp4", 1), numbers(tmp_path / "a.mp4", 99)) == ([0], list(range(9)))
    chosen = list(frames(tmp_path / "a.mp4", numbers(tmp_path / "a.mp4", 3)))
    assert [number for number, _ in chosen] == [0, 4, 8]
    assert [pixels.mean() for _, pixels in chosen] == pytest.approx([20, 120, 220], abs=4)


def test_extracted_frames_are_taken_by_number_and_an_empty_folder_hides_no_video(tmp_path: Path) -> None:
    put(tmp_path, {f"{FRAMES}/000/{n:03d}.png": f"{n}" for n in (5, 48, 999, 1000, 1499)})
    pictures, _ = ffpp.video_frames(tmp_path, None, "000", 3)
    assert pictures == [("005.png", b"5"), ("999.png", b"999"), ("1499.png", b"1499")]
    (tmp_path / FRAMES / "003").mkdir()
    film(tmp_path / VIDEOS / "003.mp4", 9)
    assert len(ffpp.video_frames(tmp_path, None, "003", 3)[0]) == 3


def test_frames_that_are_not_drawn_are_not_decoded(tmp_path: Path) -> None:
    film(tmp_path / VIDEOS / "000.mp4", 9)
    crop = Mock(side_effect=lambda pixels, _: pixels, key="as they are")
    one = ffpp.frame_id(None, "000", "004.png")
    pictures, _ = ffpp.video_frames(tmp_path, None, "000", 3, lambda id: id == one, crop)
    assert pictures == [ffpp.video_frames(tmp_path, None, "000", 3)[0][1]]
    assert ffpp.video_frames(tmp_path, None, "000", 3, lambda id: False, crop) == ([], [])
    assert crop.call_count == 1


def test_ffpp_reads_videos_methods_and_splits(tmp_path: Path) -> None:
    black = encode(Image.new("RGB", (8, 8)), "PNG")
    put(ffpp_tree(tmp_path), {f"{FRAMES}/003/{n:03d}.png": black for n in (0, 9, 25)})
    records, unusable = parted(ffpp.read(tmp_path, 2))
    assert len(records) == 2 * (4 + 4 * 2)
    assert unusable == []
    assert [(r.id, r.label, r.item, r.split, r.generator) for r in (records[0], records[-1])] == [
        ("ff++/real/youtube/c23/frames/000/000.png", REAL, "000", "train", None),
        ("ff++/fake/NeuralTextures/c23/frames/007_002/004.png", FAKE, "007", "test", "NeuralTextures"),
    ]
    assert {r.category for r in records} == {"deepfake"}
    assert all(Image.open(io.BytesIO(r.image)).format == "PNG" for r in records)
    extracted = [r for r in records if r.item == "003"]
    assert [r.id.rsplit("/", 1)[1] for r in extracted] == ["000.png", "025.png"], "instead of the video's"
    assert {r.item for r in ffpp.read(tmp_path, 2, splits=("test",))} == {"007", "002"}


def test_broken_and_missing_videos_are_unusable(tmp_path: Path) -> None:
    videos = ffpp_tree(tmp_path) / VIDEOS
    (videos / "000.mp4").write_bytes((videos / "000.mp4").read_bytes()[:300])
    (videos / "003.mp4").write_bytes(b"")
    records, unusable = parted(ffpp.read(tmp_path, 2))
    assert {r.item for r in records if r.label == REAL} == {"002", "007"}
    assert [row.path for row in unusable] == [f"{VIDEOS}/000.mp4", f"{VIDEOS}/003.mp4"]
    assert ffpp.video_frames(tmp_path, None, "999", 2)[1] == [("ff++", f"{VIDEOS}/999.mp4", "video missing")]


@pytest.mark.parametrize("only", [None, "010", "005"])
def test_a_frame_that_the_header_promises_and_that_does_not_come_is_unusable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: str | None
) -> None:
    film(tmp_path / VIDEOS / "000.mp4", 9)
    monkeypatch.setattr(ffpp, "numbers", lambda file, wanted: spaced(11, wanted))
    drawn = (lambda id: id == ffpp.frame_id(None, "000", f"{only}.png")) if only else None
    pictures, unusable = ffpp.video_frames(tmp_path, None, "000", 3, drawn)
    assert [name for name, _ in pictures] == [n for n in ("000.png", "005.png") if only in (None, n[:3])]
    reason = "the video's header promises it, but it does not come"
    assert unusable == ([] if only == "005" else [("ff++", f"{VIDEOS}/000.mp4#010", reason)])


def test_ffpp_names_what_is_missing(tmp_path: Path) -> None:
    def fails(problem: str, root: Path = tmp_path) -> None:
        with pytest.raises(UserError, match=problem):
            list(ffpp.read(root, 1))

    fails("FaceForensics", tmp_path / "nowhere")
    (ffpp_tree(tmp_path) / "splits/val.json").unlink()
    fails(r"val\.json")
    put(tmp_path, {"splits/val.json": "[1, 2]"})
    fails("not a list of pairs")
    put(tmp_path, {"splits/val.json": "[]"})
    film(tmp_path / VIDEOS / "999.mp4", 2)
    fails("video 999")
    (tmp_path / VIDEOS / "999.mp4").unlink()
    (tmp_path / "manipulated_sequences/FaceSwap").rename(tmp_path / "elsewhere")
    fails("FaceSwap")


def test_ddvqa_asks_one_question_a_frame_in_order(tmp_path: Path) -> None:
    faces = ffpp_tree(tmp_path / "ffpp")
    records, unusable = parted(ddvqa.read(ddvqa_tree(tmp_path / "ddvqa"), faces, 3))
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
    frame = {r.id: r.image for r in ffpp.read(faces, 3)}
    assert all(frame[r.path] == r.image for r in records)
    missing = "manipulated_sequences/FaceShifter/c23/videos/007_002.mp4"
    assert [row[1:] for row in unusable] == [(missing, "video missing")]
    moved = ddvqa_tree(tmp_path / "repository/DQ_FF++").parent
    assert parted(ddvqa.read(moved, faces, 3))[0] == records


def test_ddvqa_names_a_bad_entry(tmp_path: Path) -> None:
    root = ddvqa_tree(tmp_path)
    bad = {"9_002": {}}, {"5_002": {"0": {"question": "Q?"}}}
    for content, problem in zip(bad, ("9_002", "not questions with answers"), strict=True):
        put(root, {"test_set/Original/Original.json": json.dumps(content)})
        with pytest.raises(UserError, match=problem):
            list(ddvqa.read(root, tmp_path / "ffpp", 1))
    with pytest.raises(UserError, match="train_set"):
        list(ddvqa.entries(root, "train"))

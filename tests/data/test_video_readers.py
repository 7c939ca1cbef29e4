"""FaceForensics++ and DD-VQA: videos, extracted frames, official splits, face crops, questions."""

import io
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image

from fakevlm.collection.amounts import unread
from fakevlm.config.params import FaceCrop
from fakevlm.data.corpora import ddvqa, faces, ffpp
from fakevlm.data.corpora.faces import Cropper, Face, make_cropper
from fakevlm.data.corpora.ffpp import frames, numbers, spaced
from fakevlm.data.corpora.files import BadImage
from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError
from smallcorpora import ddvqa_tree, dlib_points, ffpp_tree, film, landmarks_tree, parted, posed, put

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
    for video in ("000", "003"):
        film(tmp_path / VIDEOS / f"{video}.mp4", 9)
    pictures, _ = ffpp.video_frames(tmp_path, None, "000", 3)
    assert pictures == [("005.png", b"5"), ("999.png", b"999"), ("1499.png", b"1499")], "not the video's"
    (tmp_path / FRAMES / "003").mkdir()
    assert len(ffpp.video_frames(tmp_path, None, "003", 3)[0]) == 3


def test_ffpp_reads_videos_methods_and_splits(tmp_path: Path) -> None:
    records, unusable = parted(ffpp.read(ffpp_tree(tmp_path), 2))
    assert len(records) == 2 * (4 + 4 * 2)
    assert unusable == []
    first, last = ((r.id, r.label, r.group, r.split, r.generator) for r in (records[0], records[-1]))
    assert first == ("ff++/real/youtube/c23/frames/000/000.png", REAL, "000", "train", None)
    name = "ff++/fake/NeuralTextures/c23/frames/007_002/004.png"
    assert last == (name, FAKE, "007", "test", "NeuralTextures")
    assert {r.category for r in records} == {"deepfake"}
    assert all(Image.open(io.BytesIO(r.image)).format == "PNG" for r in records)
    assert {r.group for r in ffpp.read(tmp_path, 2, splits=("test",))} == {"007", "002"}
    for name in ("000 (1).mp4", "000.MP4", "007.mp4.part"):
        shutil.copy(tmp_path / VIDEOS / "000.mp4", tmp_path / VIDEOS / name)
    put(tmp_path, {f"{FRAMES}/@eaDir/000.png": b"a thumbnail"})
    film(tmp_path / "manipulated_sequences/Another/c23/videos/000_003.mp4", 2)
    assert list(ffpp.read(tmp_path, 2)) == records
    reasons = [row.reason.split("such as ")[1].split(":")[0] for row in unread("ffpp", tmp_path)]
    assert reasons == ["000_003.mp4", "000.MP4", "000 (1).mp4", "007.mp4.part"]


def test_broken_and_missing_videos_are_unusable(tmp_path: Path) -> None:
    videos = ffpp_tree(tmp_path) / VIDEOS
    (videos / "000.mp4").write_bytes((videos / "000.mp4").read_bytes()[:300])
    (videos / "003.mp4").write_bytes(b"")
    records, unusable = parted(ffpp.read(tmp_path, 2))
    assert {r.group for r in records if r.label == REAL} == {"002", "007"}
    assert [row.path for row in unusable] == [f"{VIDEOS}/000.mp4", f"{VIDEOS}/003.mp4"]
    assert ffpp.video_frames(tmp_path, None, "999", 2)[1] == [("ff++", f"{VIDEOS}/999.mp4", "video missing")]


@pytest.mark.parametrize("only", [None, "010", "005"])
def test_a_promised_frame_that_does_not_come_is_unusable(tmp_path: Path, monkeypatch, only: str | None):
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
    videos = ffpp_tree(tmp_path / "ffpp")
    records, unusable = parted(ddvqa.read(ddvqa_tree(tmp_path / "ddvqa"), videos, 3))
    fake = "ff++/fake/Deepfakes/c23/frames/007_002"
    # More questions than frames: from the first again; 10 comes after 2.
    expected = [f"{fake}/{name}" for name in ("000.png#0", "002.png#1", "004.png#2", "000.png#10")]
    expected.append("ff++/fake/NeuralTextures/c23/frames/007_002/000.png#0")
    expected.append("ff++/real/youtube/c23/frames/002/000.png#0")
    assert [r.id for r in records] == expected
    assert records[1].question == "Q1?"
    assert records[1].references == ["The image looks fake. A1.", "The image looks fake. B."]
    assert [r.label for r in records] == [FAKE] * 5 + [REAL]
    assert [r.generator for r in records[-2:]] == ["NeuralTextures", None]
    frame = {r.id: r.image for r in ffpp.read(videos, 3)}
    assert all(frame[r.path] == r.image for r in records)
    missing = "manipulated_sequences/FaceShifter/c23/videos/007_002.mp4"
    assert [row[1:] for row in unusable] == [(missing, "video missing")]
    moved = ddvqa_tree(tmp_path / "repository/DQ_FF++").parent
    copy = (moved / "DQ_FF++/test_set/Deepfakes/Deepfakes.json").read_bytes()
    names = (".ipynb_checkpoints/.ipynb_checkpoints", "Deepfakes/Deepfakes (1)", "@eaDir/@eaDir")
    put(moved, {f"DQ_FF++/test_set/{name}.json": copy for name in names})
    assert parted(ddvqa.read(moved, videos, 3))[0] == records


def test_ddvqa_names_a_bad_entry(tmp_path: Path) -> None:
    root = ddvqa_tree(tmp_path)
    bad = [({"9_002": {}}, "9_002"), ({"5_../../002": {}}, "not <method>_<video>")]
    rows = {"question": "Q?"}, {"question": None, "answer": ["A."]}, {"question": "Q?", "answer": "A."}
    for content, problem in bad + [({"5_002": {"0": row}}, "not questions with answers") for row in rows]:
        put(root, {"test_set/Original/Original.json": json.dumps(content)})
        with pytest.raises(UserError, match=problem):
            list(ddvqa.read(root, tmp_path / "ffpp", 1))
    with pytest.raises(UserError, match="train_set"):
        list(ddvqa.entries(root, "train"))


FRAME = np.zeros((480, 640, 3), np.uint8)


def face_crop(detector: str = "landmarks", size: int = 16, model: Path | str | None = None) -> FaceCrop:
    return FaceCrop(detector=detector, model=model and str(model), score=0.9, size=size, scale=1.3)


def test_template_is_that_of_deepfakebench() -> None:
    # By hand from its script: (30.2946 + 8) · 256/112 = 87.5305; + 38.4 margin; · 256 / 332.8 = 96.8696.
    assert faces.template(256, 1.3)[0] == pytest.approx([96.8696, 120.4340], abs=1e-3)


def test_the_crop_shows_the_largest_face_where_the_template_has_it() -> None:
    points = posed(-0.3, 1.4, 150, 120)
    frame = np.zeros((600, 700, 3), np.uint8)
    for n, (x, y) in enumerate(points):
        cv2.circle(frame, (round(x), round(y)), 6, (255, 40 * n, 0), -1)
    boxes = [Face(50.0, posed(0, 0.5, 50, 50)), Face(900.0, points), Face(60.0, posed(0, 0.6, 9, 9))]
    crop = Cropper(lambda *_: boxes, 256, 1.3)(frame, Path())
    assert crop.shape == (256, 256, 3)
    for n, (x, y) in enumerate(faces.template(256, 1.3)):
        assert crop[round(y), round(x)].tolist() == [255, 40 * n, 0]
    assert (crop[:5, :5] == 0).all()
    with pytest.raises(BadImage, match="one spot"):
        Cropper(lambda *_: [Face(1.0, np.full((5, 2), 7.0))], 256, 1.3)(frame, Path())


@pytest.mark.parametrize("count", [5, 68, 81])
def test_landmarks_are_read_in_the_order_of_dlib(tmp_path: Path, count: int) -> None:
    points = posed(0.1, 2, 30, 40)
    np.save(tmp_path / "a.npy", points if count == 5 else dlib_points(points, count))
    (face,) = faces.read_landmarks(FRAME, tmp_path / "a.npy")
    assert face.points == pytest.approx(points)


def test_broken_landmarks_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    assert faces.read_landmarks(FRAME, file) == []
    pickled = np.array([{"a": 1}], dtype=object)  # never opened
    for content in (np.zeros((7, 2)), np.full((5, 2), np.nan), pickled):
        np.save(file, content)
        problem = "not readable" if content is pickled else "not 5, 68 or 81 points"
        with pytest.raises(BadImage, match=problem):
            faces.read_landmarks(FRAME, file)
    file.write_bytes(b"")
    with pytest.raises(BadImage, match="not readable"):
        faces.read_landmarks(FRAME, file)


def test_landmarks_of_a_crop_do_not_crop_a_frame(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", dlib_points(np.round(posed(0.02, 1.01, 1, -2))))
    with pytest.raises(BadImage, match="landmarks of a crop"):
        make_cropper(face_crop(size=256))(FRAME, tmp_path / "a.npy")


def test_videos_become_crops_and_frames_without_a_face_are_unusable(tmp_path: Path) -> None:
    ffpp_tree(tmp_path)
    folder = landmarks_tree(tmp_path / VIDEOS, "000", (0, 8))  # of the three frames taken, 4 has no face
    cropper = make_cropper(face_crop())
    crops, unusable = ffpp.video_frames(tmp_path, None, "000", 3, crop=cropper)
    frames = dict(ffpp.video_frames(tmp_path, None, "000", 3)[0])
    assert [name for name, _ in crops] == ["000.png", "008.png"]
    for name, data in crops:
        frame, crop = (np.asarray(Image.open(io.BytesIO(image))) for image in (frames[name], data))
        np.testing.assert_array_equal(crop, cropper(frame, folder / f"{name[:3]}.npy"))
    assert unusable == [("ff++", f"{VIDEOS}/000.mp4#004", "no face found")]
    put(tmp_path, {"original_sequences/youtube/c23/frames/000/012.png": b"a crop"})
    assert ffpp.video_frames(tmp_path, None, "000", 3, crop=cropper) == ([("012.png", b"a crop")], [])


def test_rows_of_yunet_become_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"x")
    small, large = posed(0.1, 0.3, 10, 10), posed(-0.1, 0.6, 150, 60)
    rows = ((10, 10, 40, 40, *small.ravel(), 0.99), (150, 60, 90, 90, *large.ravel(), 0.91))
    net = Mock()
    net.detect.return_value = 1, np.array(rows, np.float32)
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: net)
    cropper = make_cropper(face_crop("opencv", 256, tmp_path / "yunet.onnx"))
    frame = np.full((300, 400, 3), (1, 2, 3), np.uint8)
    boxes = cropper.find(frame, Path())
    net.setInputSize.assert_called_with((400, 300))
    assert net.detect.call_args.args[0][0, 0].tolist() == [3, 2, 1], "BGR"
    assert [face.area for face in boxes] == [1600, 8100]
    assert boxes[1].points == pytest.approx(large, abs=1e-4)
    largest = Cropper(lambda *_: boxes[1:], 256, 1.3)(frame, Path())
    np.testing.assert_array_equal(cropper(frame, Path()), largest, "not the most certain one")
    net.detect.return_value = 1, None
    with pytest.raises(BadImage, match="no face"):
        cropper(frame, Path())


def test_yunet_needs_its_model(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"<html>")
    for file, problem in ("none.onnx", "(?s)no such file.*opencv_zoo"), ("bad.onnx", "is no YuNet model"):
        with pytest.raises(UserError, match=problem):
            make_cropper(face_crop("opencv", model=tmp_path / file))

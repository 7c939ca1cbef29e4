"""Face crops: the template, the largest face, landmarks in files, YuNet, frames without a face."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fakevlm.config.params import FaceCrop
from fakevlm.data.corpora import faces, ffpp
from fakevlm.data.corpora.faces import Cropper, Face, make_cropper
from fakevlm.data.corpora.files import BadImage
from fakevlm.errors import UserError
from smallcorpora import dlib_points, ffpp_tree, landmarks_tree, posed, put, settings

VIDEOS = "original_sequences/youtube/c23/videos"
FRAME = np.zeros((480, 640, 3), np.uint8)


def face_crop(detector: str = "landmarks", size: int = 16, model: Path | None = None) -> FaceCrop:
    name = None if model is None else str(model)
    return FaceCrop(detector=detector, model=name, score=0.9, size=size, scale=1.3)


def test_template_is_that_of_deepfakebench() -> None:
    # By hand from its script: (30.2946 + 8) · 256/112 = 87.5305; + 38.4 margin; · 256 / 332.8 = 96.8696.
    assert faces.template(256, 1.3)[0] == pytest.approx([96.8696, 120.4340], abs=1e-3)
    assert faces.template(256, 1.3)[4] == pytest.approx([153.8987, 191.6556], abs=1e-3)


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
    for found, problem in (([], "no face"), ([Face(1.0, np.full((5, 2), 7.0))], "one spot")):
        with pytest.raises(BadImage, match=problem):
            Cropper(lambda *_, found=found: found, 256, 1.3)(frame, Path())


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
    """DeepfakeBench publishes landmarks of its crops, which do not fit whole frames."""
    np.save(tmp_path / "a.npy", dlib_points(np.round(posed(0.02, 1.01, 1, -2))))
    cropper = make_cropper(face_crop(size=256))
    with pytest.raises(BadImage, match="landmarks of a crop"):
        cropper(FRAME, tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", dlib_points(posed(0.02, 1.01, 150, 60)))
    assert cropper(FRAME, tmp_path / "a.npy").shape == (256, 256, 3)


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
    assert len(ffpp.video_frames(tmp_path, None, "003", 2, crop=cropper)[1]) == 2, "the video itself is good"
    put(tmp_path, {"original_sequences/youtube/c23/frames/000/012.png": b"a crop"})
    assert ffpp.video_frames(tmp_path, None, "000", 3, crop=cropper) == ([("012.png", b"a crop")], [])


class Net:
    """Stands in for OpenCV's network: answers in the rows of FaceDetectorYN, of two faces."""

    small, large = posed(0.1, 0.3, 10, 10), posed(-0.1, 0.6, 150, 60)
    rows = ((10, 10, 40, 40, *small.ravel(), 0.99), (150, 60, 90, 90, *large.ravel(), 0.91))

    def setInputSize(self, size: tuple[int, int]) -> None:
        assert size == (400, 300)

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert image[0, 0].tolist() == [3, 2, 1], "BGR"
        return 1, None if self.rows is None else np.array(self.rows, np.float32)


def test_rows_of_yunet_become_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"x")
    net = Net()
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: net)
    cropper = make_cropper(face_crop("opencv", 256, tmp_path / "yunet.onnx"))
    frame = np.full((300, 400, 3), (1, 2, 3), np.uint8)
    boxes = cropper.find(frame, Path())
    assert [face.area for face in boxes] == [1600, 8100]
    assert boxes[1].points == pytest.approx(Net.large, abs=1e-4)
    largest = Cropper(lambda *_: boxes[1:], 256, 1.3)(frame, Path())
    np.testing.assert_array_equal(cropper(frame, Path()), largest, "not the most certain one")
    net.rows = None
    with pytest.raises(BadImage, match="no face"):
        cropper(frame, Path())


def test_yunet_needs_its_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file") as error:
        make_cropper(face_crop("opencv", model=tmp_path / "none.onnx"))
    assert "opencv_zoo" in error.value.cure
    (tmp_path / "bad.onnx").write_bytes(b"<html>")
    with pytest.raises(UserError, match="is no YuNet model"):
        make_cropper(face_crop("opencv", model=tmp_path / "bad.onnx"))
    for wrong in ({"detector": "opencv"}, {"detector": "landmarks", "model": "x.onnx"}):
        with pytest.raises(ValueError, match="needs model"):
            settings(face_crop={**wrong, "score": 0.9, "size": 256, "scale": 1.3})

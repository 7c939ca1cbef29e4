"""Face crops: the template, the largest face, landmarks in files, YuNet, frames without a face."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fakevlm.config.params import FaceCrop
from fakevlm.data.corpora import ddvqa, faces, ffpp
from fakevlm.data.corpora.faces import Cropper, Face, NoFace
from fakevlm.data.corpora.files import BadImage, Quarantine
from fakevlm.errors import UserError
from test_corpora_collect import settings
from test_corpora_faces import ddvqa_tree, tree

LANDMARKS = FaceCrop(detector="landmarks", score=0.9, size=16, scale=1.3)


def posed(angle: float, zoom: float, right: float, down: float, size: int = 256) -> np.ndarray:
    """The template's points as a face elsewhere in the picture shows them: turned, zoomed, moved."""
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return faces.template(size, 1.3) @ turn.T + (right, down)


def dlibs(five: np.ndarray, count: int = 81) -> np.ndarray:
    points = np.full((count, 2), 3.0)
    points[faces.AMONG_DLIBS] = five
    return points


def test_template_is_deepfakebenchs() -> None:
    # By hand from its script: (30.2946 + 8) · 256/112 = 87.5305; + 38.4 margin; · 256 / (256 + 76.8) =
    # 96.8696.
    assert faces.template(256, 1.3)[0] == pytest.approx([96.8696, 120.4340], abs=1e-3)
    assert faces.template(256, 1.3)[4] == pytest.approx([153.8987, 191.6556], abs=1e-3)
    assert faces.template(112, 1.0) == pytest.approx(faces.TEMPLATE + faces.SHIFT)
    assert faces.template(128, 1.3) == pytest.approx(faces.template(256, 1.3) / 2)


def test_a_known_pose_is_undone() -> None:
    points = posed(0.4, 1.7, 210, -35)
    matrix = faces.similarity(points, faces.template(256, 1.3))
    assert matrix[:, :2] @ points.T + matrix[:, 2:] == pytest.approx(faces.template(256, 1.3).T, abs=1e-9)
    assert np.hypot(matrix[0, 0], matrix[1, 0]) == pytest.approx(1 / 1.7)


def test_similarity_is_umeyamas() -> None:
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(5, 2)) * 40 + 100, faces.template(256, 1.3)
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a / 5)
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    linear = np.trace(np.diag(s) @ sign) / a.var(0).sum() * (u @ sign @ vt)
    expected = np.column_stack([linear, target.mean(0) - linear @ source.mean(0)])
    assert faces.similarity(source, target) == pytest.approx(expected, abs=1e-9)


def test_the_crop_shows_the_points_where_the_template_has_them() -> None:
    points = posed(-0.3, 1.4, 150, 120)
    frame = np.zeros((600, 700, 3), np.uint8)
    for n, (x, y) in enumerate(points):
        cv2.circle(frame, (round(x), round(y)), 6, (255, 40 * n, 0), -1)
    crop = faces.align(frame, points, 256, 1.3)
    assert crop.shape == (256, 256, 3)
    for n, (x, y) in enumerate(faces.template(256, 1.3)):
        assert crop[round(y), round(x)].tolist() == [255, 40 * n, 0]
    assert (crop[:5, :5] == 0).all()


def test_points_on_one_spot_are_no_face() -> None:
    with pytest.raises(NoFace, match="one spot"):
        faces.similarity(np.full((5, 2), 7.0), faces.template(256, 1.3))


def test_the_largest_face_is_taken() -> None:
    small, large = (Face((0, 0, side, side), posed(0, side / 100, side, side)) for side in (50, 120))
    assert faces.largest([small, large]) is large
    assert faces.largest([large, small]) is large
    with pytest.raises(NoFace):
        faces.largest([])
    frame = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    crop = Cropper(lambda *_: [small, large], 64, 1.3)(frame, Path())
    np.testing.assert_array_equal(crop, faces.align(frame, large.points, 64, 1.3))


@pytest.mark.parametrize("count", [5, 68, 81])
def test_landmarks_are_read_in_dlibs_order(tmp_path: Path, count: int) -> None:
    points = posed(0.1, 2, 30, 40)
    np.save(tmp_path / "a.npy", points if count == 5 else dlibs(points, count))
    (face,) = faces.read_landmarks(np.zeros((9, 9, 3), np.uint8), tmp_path / "a.npy")
    assert face.points == pytest.approx(points)
    assert face.box[2:] == pytest.approx(np.ptp(points, axis=0))


def test_broken_landmarks_are_told(tmp_path: Path) -> None:
    frame, file = np.zeros((9, 9, 3), np.uint8), tmp_path / "a.npy"
    assert faces.read_landmarks(frame, file) == []
    for content in (np.zeros((7, 2)), np.full((5, 2), np.nan)):
        np.save(file, content)
        with pytest.raises(BadImage, match="not 5, 68 or 81 points"):
            faces.read_landmarks(frame, file)
    np.save(file, np.array([{"a": 1}], dtype=object))  # a pickle: never opened
    with pytest.raises(BadImage, match="not readable"):
        faces.read_landmarks(frame, file)
    file.write_bytes(b"")
    with pytest.raises(BadImage, match="not readable"):
        faces.read_landmarks(frame, file)


def test_landmarks_of_a_crop_do_not_crop_a_frame(tmp_path: Path) -> None:
    """DeepfakeBench publishes landmarks of its crops, which do not fit whole frames."""
    np.save(tmp_path / "a.npy", dlibs(np.round(posed(0.02, 1.01, 1, -2))))
    cropper = faces.make_cropper(FaceCrop(detector="landmarks", score=0.9, size=256, scale=1.3))
    with pytest.raises(BadImage, match="landmarks of a crop"):
        cropper(np.zeros((480, 640, 3), np.uint8), tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", dlibs(posed(0.02, 1.01, 150, 60)))
    assert cropper(np.zeros((480, 640, 3), np.uint8), tmp_path / "a.npy").shape == (256, 256, 3)


def landmarks_beside(videos: Path, video: str, numbers: tuple[int, ...]) -> None:
    folder = videos.parent / "landmarks" / video
    folder.mkdir(parents=True)
    for number in numbers:
        np.save(folder / f"{number:03d}.npy", dlibs(posed(0.2, 0.8, 12, 4, size=16)))


def test_videos_become_crops_and_frames_without_a_face_are_quarantined(tmp_path: Path) -> None:
    tree(tmp_path)
    videos = tmp_path / "original_sequences/youtube/c23/videos"
    landmarks_beside(videos, "000", (0, 8))  # nine frames; of the three asked for, 4 has no face
    quarantine = Quarantine()
    cropper = faces.make_cropper(LANDMARKS)
    found = ffpp.video_frames(tmp_path, None, "000", 3, quarantine, cropper)
    assert [name for name, _ in found] == ["000.png", "008.png"]
    whole = dict(ffpp.video_frames(tmp_path, None, "000", 3))

    def pixels(data: bytes) -> np.ndarray:
        (tmp_path / "x.png").write_bytes(data)
        return np.asarray(Image.open(tmp_path / "x.png"))

    for name, data in found:
        expected = faces.align(pixels(whole[name]), posed(0.2, 0.8, 12, 4, size=16), 16, 1.3)
        np.testing.assert_array_equal(pixels(data), expected)
    assert quarantine.rows == [("ff++", "original_sequences/youtube/c23/videos/000.mp4#004", "no face found")]
    assert ffpp.video_frames(tmp_path, None, "003", 2, quarantine, cropper) == []
    assert len(quarantine.rows) == 3
    assert "video" not in quarantine.rows[-1][2], "the video itself is sound"


def test_frames_that_are_crops_already_stay_as_they_are(tmp_path: Path) -> None:
    tree(tmp_path)
    folder = tmp_path / "original_sequences/youtube/c23/frames/000"
    folder.mkdir(parents=True)
    (folder / "012.png").write_bytes(b"a crop")
    found = ffpp.video_frames(tmp_path, None, "000", 3, crop=faces.make_cropper(LANDMARKS))
    assert found == [("012.png", b"a crop")]


def test_ddvqa_asks_about_the_same_crops(tmp_path: Path) -> None:
    tree(tmp_path / "ffpp")
    ddvqa_tree(tmp_path / "ddvqa")
    landmarks_beside(tmp_path / "ffpp/original_sequences/youtube/c23/videos", "002", (0, 8))
    cropper, quarantine = faces.make_cropper(LANDMARKS), Quarantine()
    asked = list(ddvqa.read(tmp_path / "ddvqa", tmp_path / "ffpp", 2, quarantine=quarantine, crop=cropper))
    assert [r.id for r in asked] == ["ff++/real/youtube/c23/frames/002/000.png#0"]
    read = {r.id: r.image for r in ffpp.read(tmp_path / "ffpp", 2, crop=cropper)}
    assert read[asked[0].path] == asked[0].image


def test_collect_crops_and_counts(tmp_path: Path) -> None:
    from fakevlm.collection.collect import collect

    tree(tmp_path / "ffpp")
    landmarks_beside(tmp_path / "ffpp/original_sequences/youtube/c23/videos", "000", (0, 8))
    chosen = {"detector": "landmarks", "score": 0.9, "size": 16, "scale": 1.3}
    found = collect(settings(ffpp=tmp_path / "ffpp", frames_per_video=2, face_crop=chosen), tmp_path / "out")
    assert found.sources.n.sum() == 2
    assert len(found.quarantine) == 2 * (3 + 4 * 2)
    assert set(found.quarantine.reason) == {"no face found"}


class Net:
    """Stands in for OpenCV's network: says where faces are, in the rows of FaceDetectorYN."""

    rows: np.ndarray | None = None

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
        assert (image.shape[1], image.shape[0]) == self.size
        assert image[0, 0].tolist() == [3, 2, 1], "BGR"
        return 1, self.rows


def test_yunets_rows_become_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"x")
    net = Net()
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *_: net)
    chosen = FaceCrop(detector="opencv", model=str(tmp_path / "yunet.onnx"), score=0.9, size=256, scale=1.3)
    cropper = faces.make_cropper(chosen)
    frame = np.full((300, 400, 3), (1, 2, 3), np.uint8)
    with pytest.raises(NoFace):
        cropper(frame, Path())
    small, large = posed(0.1, 0.3, 10, 10), posed(-0.1, 0.6, 150, 60)
    net.rows = np.array(
        [[10, 10, 40, 40, *small.ravel(), 0.99], [150, 60, 90, 90, *large.ravel(), 0.91]], np.float32
    )
    found = cropper.find(frame, Path())
    assert [face.box for face in found] == [(10, 10, 40, 40), (150, 60, 90, 90)]
    assert found[1].points == pytest.approx(large, abs=1e-4)
    np.testing.assert_array_equal(
        cropper(frame, Path()), faces.align(frame, found[1].points, 256, 1.3), "the largest, not the surest"
    )


def test_yunet_needs_its_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file") as error:
        faces.make_cropper(
            FaceCrop(detector="opencv", model=str(tmp_path / "none.onnx"), score=0.9, size=256, scale=1.3)
        )
    assert "opencv_zoo" in error.value.cure
    (tmp_path / "bad.onnx").write_bytes(b"<html>")
    with pytest.raises(UserError, match="is no YuNet model"):
        faces.make_cropper(
            FaceCrop(detector="opencv", model=str(tmp_path / "bad.onnx"), score=0.9, size=256, scale=1.3)
        )
    assert faces.make_cropper(None) is None


@pytest.mark.parametrize("wrong", [{"detector": "opencv"}, {"detector": "landmarks", "model": "x.onnx"}])
def test_a_model_goes_with_opencv_alone(wrong: dict) -> None:
    with pytest.raises(ValueError, match="needs model"):
        settings(face_crop={**wrong, "score": 0.9, "size": 256, "scale": 1.3})

"""Face crops of video frames, aligned as DeepfakeBench aligns them (Yan et al., NeurIPS 2023).

A similarity transform brings five points of the largest face (eyes, nose, corners of the mouth) nearest to a
template. DeepfakeBench's points are dlib's; here `collect.face_crop.detector` finds them (docs/corpora.md).
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fakevlm import paths
from fakevlm.config.params import FaceCrop
from fakevlm.data.corpora.files import BadImage, file_stamp
from fakevlm.errors import UserError

# Left eye, right eye (as one sees them), nose, left and right corner of the mouth: ArcFace's template, 96 px
# wide and 112 px high; DeepfakeBench moves it by SHIFT to the middle of SIDE × SIDE px.
TEMPLATE = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
)
SHIFT, SIDE = (8.0, 0.0), 112.0
# The same five among dlib's 68 (or 81: the forehead's 13 come last), numbered from 0, as in DeepfakeBench.
DLIB_FIVE = [37, 44, 30, 49, 55]
YUNET = "face_detection_yunet_2023mar.onnx from https://github.com/opencv/opencv_zoo (MIT licence)"


class Face(NamedTuple):
    """A face: the area of its box in pixels, and five points (5, 2) in pixels, ordered as `TEMPLATE`."""

    area: float
    points: np.ndarray


# (H, W, 3) uint8 RGB frame, the file in which its landmarks would be -> the faces in it.
Finder = Callable[[np.ndarray, Path], list[Face]]


def template(size: int, scale: float) -> np.ndarray:
    """Return the place of the five points in a crop of `size` pixels, `scale` times as wide as the face."""
    margin = size * (scale - 1) / 2
    return ((TEMPLATE + SHIFT) * (size / SIDE) + margin) * (size / (size + 2 * margin))


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rotation, uniform scale and shift that bring points nearest to others: (2, 3).

    In the plane this least-squares solution is Umeyama's, which DeepfakeBench takes from scikit-image. Points
    are (n, 2), n ≥ 2. Raises `BadImage` if they are all on one spot.
    """
    x, y = np.asarray(source, np.float64).T
    ones, zeros = np.ones_like(x), np.zeros_like(x)
    equations = np.concatenate([np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)])
    (a, b, right, down), _, rank, _ = np.linalg.lstsq(equations, np.asarray(target, np.float64).T.ravel())
    if rank < 4:
        raise BadImage("landmarks on one spot")
    return np.array([[a, -b, right], [b, a, down]])


def read_landmarks(_: np.ndarray, file: Path) -> list[Face]:
    """Return the face in a file of landmarks, none without a file. Raises `BadImage` if it is broken."""
    if not file.is_file():
        return []
    try:
        points = np.load(file, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise BadImage(f"landmarks not readable: {type(error).__name__}") from error
    if points.shape not in ((5, 2), (68, 2), (81, 2)) or not np.isfinite(points).all():
        raise BadImage(f"landmarks are an array of {points.shape}, not 5, 68 or 81 points")
    points = points if len(points) == 5 else points[DLIB_FIVE]
    return [Face(float(np.ptp(points, axis=0).prod()), points)]


def yunet(settings: FaceCrop) -> Finder:
    """Return a finder by OpenCV's YuNet. Raises `UserError` if its model is missing or does not load."""
    import cv2

    model = paths.resolve(settings.model)
    wrong = f"collect.face_crop.model: {settings.model!r} is no YuNet model"
    if not model.is_file():
        raise UserError(f"{wrong}: no such file", f"put there {YUNET}")

    def create() -> Any:
        return cv2.FaceDetectorYN.create(str(model), "", (320, 320), settings.score)

    try:
        create()
    except cv2.error as error:
        raise UserError(f"{wrong} ({error.err})", f"put there {YUNET}") from error
    threads = threading.local()  # a detector holds the frame's size: one a thread

    def find(frame: np.ndarray, _: Path) -> list[Face]:
        if not hasattr(threads, "detector"):
            threads.detector = create()
        height, width = frame.shape[:2]
        threads.detector.setInputSize((width, height))
        rows = threads.detector.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1]
        rows = [] if rows is None else np.asarray(rows, np.float64)
        # x, y, width, height, five points from the eye on the image's left to the mouth, score
        return [Face(row[2] * row[3], row[4:14].reshape(5, 2)) for row in rows]

    return find


@dataclass(frozen=True)
class Cropper:
    """Cut the largest face out of a frame."""

    find: Finder
    size: int  # pixels a side of the crop
    scale: float  # see `template`
    key: Any = None  # decides, with the frame and its landmarks, the crop; as JSON has it

    def __call__(self, frame: np.ndarray, landmarks: Path) -> np.ndarray:
        """Return the crop: (H, W, 3) uint8 RGB → (size, size, 3); black outside the frame.

        Raises `BadImage` if there is no face, or the file of landmarks is broken or that of a crop.
        """
        import cv2

        faces = self.find(frame, landmarks)
        if not faces:
            raise BadImage("no face found")
        matrix = similarity(max(faces, key=lambda face: face.area).points, template(self.size, self.scale))
        # The face of a frame is never on the template by itself; the landmarks of a crop are.
        turned, shifted = np.abs(matrix[:, :2] - np.eye(2)).max(), np.abs(matrix[:, 2]).max()
        in_place = turned < 0.1 and shifted < 0.08 * self.size and frame.shape[:2] != (self.size, self.size)
        if self.find is read_landmarks and in_place:
            raise BadImage("landmarks of a crop, not of the frame: take DeepfakeBench's frames too")
        return cv2.warpAffine(frame, matrix, (self.size, self.size))


def make_cropper(settings: FaceCrop | None) -> Cropper | None:
    """Return the cropper of `collect.face_crop`, None if frames are not cropped. Raises as `yunet` does."""
    if settings is None:
        return None
    find = read_landmarks if settings.detector == "landmarks" else yunet(settings)
    model = file_stamp(paths.resolve(settings.model)) if settings.model else None
    return Cropper(find, settings.size, settings.scale, [settings.model_dump(), model])

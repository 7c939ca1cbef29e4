"""FaceForensics++ (Rössler et al., ICCV 2019), compression c23: 1,000 videos and four manipulations of each.

Licence: research only, by form at https://github.com/ondyari/FaceForensics, whose script downloads the videos
(`download-FaceForensics.py <root> -d all -c c23 -t videos`) and whose repository holds `dataset/splits`.

Layout::

    <root>/original_sequences/youtube/c23/videos/033.mp4
    <root>/manipulated_sequences/<Method>/c23/videos/033_097.mp4      <target>_<source>
    <root>/splits/{train,val,test}.json                               [["071", "054"], …]: 360, 70, 70 pairs

Method is Deepfakes, Face2Face, FaceSwap or NeuralTextures. Where a `frames` folder lies beside `videos`
(`…/c23/frames/033_097/012.png`, as DeepfakeBench crops faces to 256×256 and FakeClue releases them), its
images are taken instead, as they are. Frames from videos are stored as PNG: whole, or the face's crop where
`collect.face_crop` says so (`faces`).

A video and all manipulations of it share one `item`, the target's id. The official split goes by pairs, so
neither target nor source of a test video occurs in training.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fakevlm.data.corpora.faces import Cropper
from fakevlm.data.corpora.files import (
    BadImage,
    Quarantine,
    appledouble,
    file_stamp,
    images,
    need_folder,
    need_json,
)
from fakevlm.data.corpora.video import frames as decode
from fakevlm.data.corpora.video import numbers, spaced
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError
from fakevlm.prefetch import prefetch

WHERE = (
    "get FaceForensics++ by the form at https://github.com/ondyari/FaceForensics "
    "(c23 videos and dataset/splits)"
)
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
SPLITS = ("train", "val", "test")


class FrameCache(Protocol):
    """Stores the frames of a video, as (file name, bytes), under a key that JSON can hold."""

    def get(self, key: Any) -> list[tuple[str, bytes]] | None: ...

    def put(self, key: Any, frames: list[tuple[str, bytes]]) -> None: ...


def frame_id(method: str | None, video: str, frame: str) -> str:
    """The record id of a frame (`000.png`) of a video; `method` None for an original."""
    place = f"fake/{method}" if method else "real/youtube"
    return f"ff++/{place}/c23/frames/{video}/{frame}"


def pairs(root: Path, split: str) -> list[tuple[str, str]]:
    """The pairs of original video ids of one official split; each was manipulated in both directions.

    Raises:
        UserError: the split's file is missing or not a list of pairs.
    """
    file = root / "splits" / f"{split}.json"
    try:
        return [(str(first), str(second)) for first, second in need_json(file, "FF++", WHERE)]
    except (TypeError, ValueError) as error:
        raise UserError(f"FF++: {file} is not a list of pairs of video ids", WHERE) from error


def read_splits(root: Path) -> dict[str, str]:
    """`train`, `val` or `test` by original video id.

    Raises:
        UserError: a split file is missing or not a list of pairs.
    """
    return {video: split for split in SPLITS for pair in pairs(root, split) for video in pair}


def _place(root: Path, method: str | None) -> Path:
    parts = ("manipulated_sequences", method) if method else ("original_sequences", "youtube")
    return root.joinpath(*parts, "c23")


def _landmarks(place: Path, video: str, number: int) -> Path:
    return place / "landmarks" / video / f"{number:03d}.npy"


def video_frames(
    root: Path,
    method: str | None,
    video: str,
    wanted: int,
    quarantine: Quarantine | None = None,
    crop: Cropper | None = None,
    drawn: Callable[[str], bool] | None = None,
    frames: FrameCache | None = None,
) -> list[tuple[str, bytes]]:
    """Return evenly spaced frames of one video as (file name, bytes): extracted ones, else decoded ones.

    Of them only those that are `drawn` by their ids: others are not read, decoded or cropped. A video that
    does not decode gives none and goes to quarantine, so does one that is missing, and a frame that has no
    face or does not come. `frames` keeps what decoded without any of this.
    """
    quarantine = Quarantine() if quarantine is None else quarantine
    place = _place(root, method)
    folder, file = place / "frames" / video, place / "videos" / f"{video}.mp4"
    # By number: DeepfakeBench names them by three digits, and the thousandth by four.
    if (
        found := sorted(images(folder), key=lambda frame: (len(frame.stem), frame.stem))
        if folder.is_dir()
        else []
    ):
        chosen = [found[i] for i in spaced(len(found), wanted)]
        return [
            (f.name, f.read_bytes())
            for f in chosen
            if drawn is None or drawn(frame_id(method, video, f.name))
        ]
    name = file.relative_to(root).as_posix()

    def look(number: int, pixels: np.ndarray) -> np.ndarray | None:
        try:
            return crop(pixels, _landmarks(place, video, number))
        except BadImage as error:
            quarantine.add("ff++", f"{name}#{number:03d}", str(error))
            return None

    def lost(number: int) -> None:
        quarantine.add("ff++", f"{name}#{number:03d}", "the video's header promises it, but it does not come")

    try:
        if not file.is_file():
            raise BadImage("video missing")
        chosen = [
            number
            for number in numbers(file, wanted)
            if drawn is None or drawn(frame_id(method, video, f"{number:03d}.png"))
        ]
        points = [file_stamp(_landmarks(place, video, number)) for number in chosen] if crop else []
        key = [str(file), file_stamp(file), chosen, points]
        if not chosen:
            return []
        if frames is not None and (cached := frames.get(key)) is not None:
            return cached
        noted = len(quarantine)
        decoded = decode(file, chosen, look if crop else None, lost)
        pictures = [(f"{number:03d}.png", data) for number, data in decoded]
        if frames is not None and len(quarantine) == noted:
            frames.put(key, pictures)
        return pictures
    except BadImage as error:
        quarantine.add("ff++", name, str(error))
        return []


def has_video(root: Path, method: str | None, video: str) -> bool:
    """Whether a video lies there, as frames or as a file."""
    place = _place(root, method)
    return (place / "frames" / video).is_dir() or (place / "videos" / f"{video}.mp4").is_file()


def videos(root: Path, method: str | None) -> list[str]:
    """The ids of the videos of a method (None: originals) that lie there as frames or as videos.

    Raises:
        UserError: there is neither folder.
    """
    place = _place(root, method)
    names = {p.stem for p in (place / "videos").glob("*.mp4") if not appledouble(p.name)}
    if (place / "frames").is_dir():
        names |= {p.name for p in (place / "frames").iterdir() if p.is_dir()}
    elif not (place / "videos").is_dir():
        need_folder(place / "videos", "FF++", WHERE)
    return sorted(names)


def read(
    root: Path,
    frames_per_video: int,
    quarantine: Quarantine | None = None,
    methods: Sequence[str] = METHODS,
    crop: Cropper | None = None,
    splits: Sequence[str] = SPLITS,
    drawn: Callable[[str], bool] | None = None,
    frames: FrameCache | None = None,
) -> Iterator[Record]:
    """Stream the frames of the originals, then of each method, that are in `splits` and `drawn` by their ids.

    Raises:
        UserError: a folder or a split file is missing, or a video stands in no split.
    """
    need_folder(root, "FF++", WHERE)
    official = read_splits(root)

    def chosen() -> Iterator[tuple[str | None, str]]:
        for method in (None, *methods):
            for video in videos(root, method):
                if (target := video.split("_")[0]) not in official:
                    raise UserError(f"FF++: video {video} stands in none of {root / 'splits'}/*.json", WHERE)
                if official[target] in splits:
                    yield method, video

    def taken(place: tuple[str | None, str]) -> tuple[str | None, str, list[tuple[str, bytes]], Quarantine]:
        notes = Quarantine()
        return *place, video_frames(root, *place, frames_per_video, notes, crop, drawn, frames), notes

    for method, video, pictures, notes in prefetch(taken, chosen()):
        if quarantine is not None:
            quarantine.take(notes)
        target = video.split("_")[0]
        for name, data in pictures:
            yield Record(
                id=frame_id(method, video, name),
                image=data,
                label=FAKE if method else REAL,
                source="ff++",
                item=target,
                category="deepfake",
                generator=method,
                split=official[target],
            )

"""FaceForensics++ (Rössler et al., ICCV 2019), compression c23: 1,000 videos and four manipulations of each.

<root>/original_sequences/youtube/c23/videos/033.mp4
<root>/manipulated_sequences/<Method>/c23/videos/033_097.mp4      <target>_<source>, Method of `METHODS`
<root>/splits/{train,val,test}.json                               [["071", "054"], …]: 360, 70, 70 pairs
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from fakevlm import cache
from fakevlm.data.corpora.faces import Cropper
from fakevlm.data.corpora.files import SOURCES, BadImage, Drawn, Unusable, file_stamp, images, listing
from fakevlm.data.corpora.imagefolders import Place
from fakevlm.data.records import FAKE, REAL, Record, encode
from fakevlm.prefetch import prefetch

SOURCE = SOURCES["ffpp"]
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
SPLITS = ("train", "val", "test")
VIDEO = re.compile(r"\d+(?:_\d+)?")  # `033`, `033_097`

Frames = tuple[list[tuple[str, bytes]], list[Unusable]]  # (file name, bytes) of each, and what is unusable


def frame_id(method: str | None, video: str, frame: str) -> str:
    """Return the record id of a frame (`000.png`) of a video; `method` None for an original."""
    place = f"fake/{method}" if method else "real/youtube"
    return f"ff++/{place}/c23/frames/{video}/{frame}"


def pairs(root: Path, split: str) -> list[tuple[str, str]]:
    """Return the pairs of original videos in an official split. Raises `UserError` if its file is broken."""
    file = root / "splits" / f"{split}.json"
    try:
        return [(str(first), str(second)) for first, second in SOURCE.json(file)]
    except (TypeError, ValueError) as error:
        raise SOURCE.error(f"{file} is not a list of pairs of video ids") from error


def _place(root: Path, method: str | None) -> Path:
    parts = ("manipulated_sequences", method) if method else ("original_sequences", "youtube")
    return root.joinpath(*parts, "c23")


def spaced(total: int, wanted: int) -> list[int]:
    """Return `wanted` indices evenly spaced over `total`: DeepfakeBench's `fixed_num_frames`."""
    return np.unique(np.linspace(0, total - 1, wanted, dtype=int)).tolist() if total else []


@contextmanager
def _opened(file: Path) -> Iterator[av.container.InputContainer]:
    """Open a video; whatever a broken file raises becomes `BadImage`."""
    try:
        with av.open(str(file)) as container:
            yield container
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise BadImage(f"video does not decode: {type(error).__name__}") from error


def numbers(file: Path, wanted: int) -> list[int]:
    """Return the numbers (from 0) of `wanted` evenly spaced frames. Raises `BadImage` if there is none."""
    with _opened(file) as container:
        stream = container.streams.video[0]
        # The header's number when there is one; otherwise count packets, which needs no decoding.
        total = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    if not total:
        raise BadImage("video without frames")
    return spaced(total, wanted)


def frames(file: Path, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number from 0, (H, W, 3) uint8 RGB) of those of the chosen frames, ascending, that come.

    Raises `BadImage` if the file is not a video, or breaks off while decoding.
    """
    with _opened(file) as container:
        container.streams.video[0].thread_type = "NONE"  # one thread: the same bytes on every machine
        for number, frame in enumerate(container.decode(video=0)):
            if number in chosen:
                yield number, frame.to_ndarray(format="rgb24")
            if number >= chosen[-1]:
                break


def video_frames(
    root: Path, method: str | None, video: str, wanted: int, drawn: Drawn | None = None,
    crop: Cropper | None = None, values: cache.Cache | None = None,
) -> Frames:  # fmt: skip
    """Return `wanted` evenly spaced frames of one video (`method` None: an original), as PNG.

    A `frames` folder beside `videos` goes first (`…/c23/frames/033_097/012.png`, as DeepfakeBench crops faces
    and FakeClue releases them); its images are taken unchanged. Frames that are not drawn by their ids are
    not read. A missing or broken video is unusable, and so is a frame that has no face or does not come.
    `values` caches the decoded frames.
    """
    place = _place(root, method)
    folder, file = place / "frames" / video, place / "videos" / f"{video}.mp4"

    def chosen(name: str) -> bool:
        return drawn is None or drawn(frame_id(method, video, name))

    # By number: DeepfakeBench names them by three digits, and the thousandth by four.
    if extracted := sorted(images(folder), key=lambda frame: (len(frame.stem), frame.stem)):
        evenly = [extracted[i] for i in spaced(len(extracted), wanted)]
        return [(frame.name, frame.read_bytes()) for frame in evenly if chosen(frame.name)], []
    name = file.relative_to(root).as_posix()
    try:
        if not file.is_file():
            raise BadImage("video missing")
        needed = [number for number in numbers(file, wanted) if chosen(f"{number:03d}.png")]
        landmarks = {number: place / "landmarks" / video / f"{number:03d}.npy" for number in needed}
        pictures, problems = _decode(file, landmarks, crop, values)
    except BadImage as error:
        return [], [Unusable("ff++", name, str(error))]
    return pictures, [Unusable("ff++", f"{name}#{n:03d}", reason) for n, reason in problems.items()]


def _decode(
    file: Path, landmarks: dict[int, Path], crop: Cropper | None, values: cache.Cache | None
) -> tuple[list[tuple[str, bytes]], dict[int, str]]:
    """Decode and crop the frames whose landmark files are given; return also why some cannot be used."""
    if not landmarks:
        return [], {}
    code = cache.code_version(*(f"fakevlm.data.corpora.{module}" for module in ("faces", "ffpp")))
    stamps = [crop.key, *map(file_stamp, landmarks.values())] if crop else None
    key = cache.key("frames", code, str(file), file_stamp(file), list(landmarks), stamps)
    if values is not None and (packed := values.get(key)) is not None:
        return [(name, data.tobytes()) for name, data in cache.unpack(packed).items()], {}
    pictures, problems = {}, dict.fromkeys(landmarks, "the video's header promises it, but it does not come")
    for number, pixels in frames(file, list(landmarks)):
        try:
            shown = crop(pixels, landmarks[number]) if crop else pixels
            pictures[f"{number:03d}.png"] = encode(Image.fromarray(shown), "PNG")
            del problems[number]
        except BadImage as error:
            problems[number] = str(error)
    if values is not None and not problems:
        values.put(key, cache.pack({name: np.frombuffer(d, np.uint8) for name, d in pictures.items()}))
    return list(pictures.items()), problems


def has_video(root: Path, method: str | None, video: str) -> bool:
    """Whether a video is there, as frames or as a file."""
    place = _place(root, method)
    return (place / "frames" / video).is_dir() or (place / "videos" / f"{video}.mp4").is_file()


def videos(root: Path, method: str | None) -> list[str]:
    """Return the ids of the videos of a method (None: originals). Raises `UserError` if there are none."""
    place = _place(root, method)
    names = {p.stem for p in listing(place / "videos", "*.mp4")}
    if (place / "frames").is_dir():
        names |= {p.name for p in listing(place / "frames") if p.is_dir()}
    else:
        SOURCE.folder(place / "videos")
    return sorted(name for name in names if VIDEO.fullmatch(name))


def places(root: Path) -> Iterator[Place]:
    """Yield the folders of frames and the files of all videos, there or not; also what DD-VQA asks about."""
    others = [method for method in ("FaceShifter",) if _place(root, method).is_dir()]
    for method in (None, *METHODS, *others):
        for video in videos(root, method):
            for name in (f"frames/{video}", f"videos/{video}.mp4"):
                yield Place(_place(root, method) / name, "", {})


def read(
    root: Path, frames_per_video: int, splits: Sequence[str] = SPLITS, **options: Any
) -> Iterator[Record | Unusable]:
    """Stream the frames of the originals, then of each method, in the given splits.

    A video and its manipulations share one `group`, the target's id. The official split goes by pairs, so
    neither target nor source of a test video occurs in training. Options are those of `video_frames`. Raises
    `UserError` if a folder or a split file is missing, or a video is in no split.
    """
    official = {video: split for split in SPLITS for pair in pairs(root, split) for video in pair}
    methods = (None, *METHODS)
    listed = [(method, video, video.split("_")[0]) for method in methods for video in videos(root, method)]
    if strangers := [video for _, video, target in listed if target not in official]:
        raise SOURCE.error(f"video {strangers[0]} is in none of {root / 'splits'}/*.json")
    listed = [entry for entry in listed if official[entry[2]] in splits]
    decoded = prefetch(lambda entry: video_frames(root, *entry[:2], frames_per_video, **options), listed)
    for (method, video, target), (pictures, unusable) in zip(listed, decoded, strict=True):
        yield from unusable
        fields = {"label": FAKE if method else REAL, "source": "ff++", "category": "deepfake"}
        fields |= {"group": target, "generator": method, "split": official[target]}
        for name, image in pictures:
            yield Record(id=frame_id(method, video, name), image=image, **fields)

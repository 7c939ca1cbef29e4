"""The miniature's FaceForensics++ (videos and splits) and DD-VQA (questions about its frames)."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from fakevlm.data.corpora import ddvqa, ffpp
from fakevlm.data.ground_truth import GroundTruth
from miniworld import export_words, world

SPLITS = {"train": 0.72, "val": 0.14, "test": 0.14}  # of the pairs, as the official ones
# Without `cpu-independent` the encoder's choices depend on where its buffers happen to lie in memory.
_H264 = {"crf": "23", "preset": "medium", "x264-params": "cpu-independent=1"}


@dataclass(frozen=True)
class VideoJob:
    """One video: an original (`method` None) or a manipulation `<target>_<source>`."""

    method: str | None
    video: str
    frames: int
    seed: tuple[int, ...]


def encode(frames: list[np.ndarray]) -> bytes:
    """An MP4 of frames (H, W, 3) uint8 with even sides.

    H.264, rate factor 23 (what "c23" means), YUV 4:2:0, 25 a second.

    The encoder's own notes in the stream are left out; one thread, so equal frames make equal bytes.
    """
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=_H264)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        notes = av.bitstream.BitStreamFilterContext("filter_units=remove_types=6", stream)
        packets = [p for pixels in frames for p in stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24"))]
        for packet in [*packets, *stream.encode(None), None]:
            for passed in notes.filter(packet):
                container.mux(passed)
    return out.getvalue()


def pairs(videos: int, seed: int) -> dict[str, list[list[str]]]:
    """The splits: pairs of video ids that swap faces with one another, so both lie in one split."""
    order = np.random.default_rng([seed, 9, 0]).permutation(videos)
    drawn = [[f"{int(a):03d}", f"{int(b):03d}"] for a, b in order.reshape(-1, 2)]
    held = max(1, round(SPLITS["val"] * len(drawn)))
    return {"train": drawn[2 * held :], "val": drawn[held : 2 * held], "test": drawn[:held]}


def video_jobs(videos: int, frames: int, seed: int) -> list[VideoJob]:
    """Every original and its four manipulations.

    All share the target's seed: the same person, light and movement.
    """
    source = {}
    for split in pairs(videos, seed).values():
        for a, b in split:
            source |= {a: b, b: a}
    jobs = [VideoJob(None, target, frames, (seed, 9, int(target))) for target in sorted(source)]
    for method in ffpp.METHODS:
        for target in sorted(source):
            jobs.append(VideoJob(method, f"{target}_{source[target]}", frames, (seed, 9, int(target))))
    return jobs


def film(job: VideoJob) -> tuple[str, bytes, list[GroundTruth]]:
    """(file relative to the export's folder, MP4, truth of each frame)."""
    shots = world.shoot_video(np.random.default_rng(job.seed), frames=job.frames, manipulation=job.method)
    place = f"manipulated_sequences/{job.method}" if job.method else "original_sequences/youtube"
    ground_truth = [
        GroundTruth(
            ffpp.frame_id(job.method, job.video, f"{n:03d}.png"),
            shot.label,
            shot.category,
            shot.artifacts,
            shot.qualities,
        )
        for n, shot in enumerate(shots)
    ]
    return f"ffpp/{place}/c23/videos/{job.video}.mp4", encode([shot.pixels for shot in shots]), ground_truth


def write_splits(out: Path, videos: int, seed: int) -> None:
    folder = out / "ffpp" / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    for split, listed in pairs(videos, seed).items():
        (folder / f"{split}.json").write_text(json.dumps(listed) + "\n", encoding="utf-8")


def write_ddvqa(out: Path, videos: int, seed: int, ground_truth: Iterable[GroundTruth]) -> None:
    """The JSON files: all test videos, and the videos of every fourth training pair.

    Args:
        ground_truth: of all frames; the first frame of a video speaks for it.
    """
    splits = pairs(videos, seed)
    chosen = {
        "test": {v for pair in splits["test"] for v in pair},
        "train": {v for pair in splits["train"][::4] for v in pair},
    }
    mids = {method: mid for mid, method in ddvqa.METHODS.items()}
    names = {None: "Original", "NeuralTextures": "Neuraltexture"}  # the release's spelling
    content: dict[tuple[str, str], dict[str, dict]] = {}
    for truth in ground_truth:
        parts = truth.path.split("/")  # ff++ / real / youtube / c23 / frames / <video> / <frame>
        method, video = (parts[2] if parts[1] == "fake" else None), parts[5]
        if parts[6] != "000.png":
            continue
        for split, targets in chosen.items():
            if video.split("_")[0] not in targets:
                continue
            key = f"{mids[method]}_{video}"
            rng = np.random.default_rng([seed, 10, int(video[:3]), int(mids[method])])
            entry = export_words.ddvqa_entry(truth, int(rng.integers(1, 4)), rng)
            content.setdefault((split, names.get(method, method)), {})[key] = entry
    for (split, name), entries in sorted(content.items()):
        folder = out / "ddvqa" / f"{split}_set" / name
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(entries, indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")

"""Writes the miniature's corpora in the layouts of the real ones: `fakevlm world --out embedded --seed 17`.

Beside the corpora comes `truth.jsonl`, the ground truth, which no real corpus has. A few files are broken on
purpose, as in every real download: one cut off, one empty, one that is not an image. All images are JPEG: in
the real GenImage the file format gives the label away. Equal seed and sizes make equal bytes; every picture
has a seed of its own, so it does not depend on how many others are made. The corpora's contents stand in
export.yaml.
"""

import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np
import yaml

from fakevlm.data.clues import KINDS
from fakevlm.data.corpora import ddvqa, ffpp, genimage, m6doc
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.page_layout import STYLES, Block, jitter
from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError
from fakevlm.progress import track
from miniworld import export_words, world
from miniworld.page_layouts import sample_layout

PLAN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CORPORA = ("genimage", "chameleon", "cvusa", "vigor", "m6doc", "ffpp", "loki", "dmimage", "ddvqa")
SIZE = 96  # pixels a side
# Without `cpu-independent` the encoder's choices depend on where its buffers happen to lie in memory.
_H264 = {"crf": "23", "preset": "medium", "x264-params": "cpu-independent=1"}
T, R = TypeVar("T"), TypeVar("R")


@dataclass(frozen=True)
class Sizes:
    """How many of what. They keep the corpora's proportions as far as a few megabytes allow.

    Attributes:
        genimage, chameleon, cvusa, vigor, m6doc: images.
        videos: FF++ originals (an even number: they come in pairs); each is manipulated in four ways.
        frames: frames a video.
        loki: images a category, three in five of them fake.
        dmimage_fakes, dmimage_reals: images a folder.
        copies: GenImage photographs that lie under a second generator too.
    """

    genimage: int = 1920
    chameleon: int = 400
    cvusa: int = 226
    vigor: int = 114
    m6doc: int = 250
    videos: int = 80
    frames: int = 4
    loki: int = 40
    dmimage_fakes: int = 18
    dmimage_reals: int = 66
    copies: int = 10

    def scaled(self, factor: float) -> "Sizes":
        """Return the same proportions, smaller: at least two of each, an even number of videos."""
        new = {f.name: max(2, round(getattr(self, f.name) * factor)) for f in fields(self)}
        return replace(self, **new | {"frames": self.frames, "videos": max(6, 2 * round(new["videos"] / 2))})


class Job(NamedTuple):
    """One picture to be drawn.

    Attributes:
        file: where it is written, relative to the export's folder; `<index>`, `<index3>` and `<synset>` stand
            for the ImageNet class of what the picture shows, known once it is drawn.
        path: its record's path, as the corpus's reader makes it; same placeholders.
        seed: of its own random generator.
        options: passed to `world.shoot`; the variant of a document is the style of its page.
    """

    file: str
    path: str
    category: str
    seed: tuple[int, ...]
    options: dict[str, Any]


class VideoJob(NamedTuple):
    """One video: an original (`method` None) or a manipulation `<target>_<source>`."""

    method: str | None
    video: str
    frames: int
    seed: tuple[int, ...]


def genimage_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield half generated images, half photographs."""
    generators, categories = list(PLAN["generators"].items()), PLAN["genimage_categories"]
    for i in range(n):
        generator, entry = generators[i // 2 % len(generators)]
        k = i // (2 * len(generators))
        fake, split = i % 2 == 1, "val" if k % 7 == 6 else "train"
        if fake:
            file = entry["file"].replace("<n5>", f"{k:05d}").replace("<n>", str(k)) + ".JPEG"
            options = {"fake": True, "kinds": entry["kinds"]}
        else:
            file = f"ILSVRC2012_val_{i + 1:08d}.JPEG" if split == "val" else f"<synset>_{i + 1}.JPEG"
            options = {}
        place = f"genimage/{entry['folder']}/{split}/{'ai' if fake else 'nature'}/{file}"
        path = genimage.record_id(FAKE if fake else REAL, generator, file)
        yield Job(place, path, categories[(k + i // 2) % len(categories)], (seed, 1, i), options)


def chameleon_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield fakes with one faint artifact each; every seventh shows none at all."""
    for i in range(n):
        name = uuid.UUID(bytes=np.random.default_rng([seed, 2, i, 1]).bytes(16), version=4)
        kind, options = ("real", "fake")[i % 2], {}
        if i % 2:
            count = (0, 0) if i // 2 % 7 == 3 else (1, 1)
            options = {"fake": True, "count": count, "strength": (0.5, 0.8)}
        category = ("human", "scene", "object", "animal")[i // 2 % 4]
        file = f"chameleon/test/{i % 2}_{kind}/{name}.jpg"
        yield Job(file, f"chameleon/{kind}/{name}.jpg", category, (seed, 2, i), options)


def satellite_jobs(cvusa: int, vigor: int, seed: int) -> Iterator[Job]:
    """Yield aerial images of suburbs and the country, then those of cities, named by their coordinates."""
    for i in range(cvusa):
        name, options = f"{44 + 37 * i:07d}.jpg", {"variant": ("suburban", "natural")[i % 2]}
        yield Job(f"cvusa/bingmap/19/{name}", f"satellite/real/{name}", "satellite", (seed, 3, i), options)
    cities = list(PLAN["cities"].items())
    for i in range(vigor):
        city, centre = cities[i % len(cities)]
        lat, lon = np.array(centre) + np.random.default_rng([seed, 4, i, 1]).uniform(-0.02, 0.02, 2)
        name, options = f"satellite_{lat:.12f}_{lon:.12f}.jpg", {"variant": "urban"}
        file = f"vigor/{city}/satellite/{name}"
        yield Job(file, f"satellite/real/{name}", "satellite", (seed, 4, i), options)


def m6doc_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield pages of newspapers, papers and magazines; 6:1:3 train, validation and test as in M6Doc."""
    for i in range(n):
        style = STYLES[i % len(STYLES)]
        split = "train" if i % 10 < 6 else "val" if i % 10 == 6 else "test"
        name = f"{style}_{i:04d}.jpg"
        options = {"variant": style}
        yield Job(f"m6doc/{split}2017/{name}", f"doc/real/{name}", "doc", (seed, 5, i), options)


def loki_jobs(per_category: int, seed: int) -> Iterator[Job]:
    """Yield seven categories; fakes may show kinds that FakeClue-mini never does."""
    for c, (folder, category) in enumerate(PLAN["loki_folders"].items()):
        for i in range(per_category):
            options: dict[str, Any] = {"style": "loki"}
            if i % 5 >= 2:
                options |= {"fake": True, "kinds": tuple(KINDS), "strength": (0.5, 1.0)}
            if category == "doc":
                options["variant"] = STYLES[i % len(STYLES)]
            path = f"loki/image/{folder}/{i:04d}.jpg"
            yield Job(path, path, category, (seed, 6, c, i), options)


def dmimage_jobs(fakes: int, reals: int, seed: int) -> Iterator[Job]:
    """Yield one folder a generator, three folders of photographs."""
    for kind, stream, n in (("fake", 7, fakes), ("real", 8, reals)):
        for g, (folder, entry) in enumerate(PLAN[f"dmimage_{kind}s"].items()):
            options = {"style": "dmimage"}
            if kind == "fake":
                options |= {"fake": True, "kinds": entry["kinds"]}
            for i in range(n):
                file, category = f"{folder}/{i:05d}.jpg", entry["shows"][i % len(entry["shows"])]
                path, job_seed = f"dmimage/{kind}/{file}", (seed, stream, g, i)
                yield Job(f"dmimage/{file}", path, category, job_seed, options)


def jobs(sizes: Sizes, seed: int) -> list[Job]:
    """Return all single pictures of all corpora."""
    return [
        *genimage_jobs(sizes.genimage, seed),
        *chameleon_jobs(sizes.chameleon, seed),
        *satellite_jobs(sizes.cvusa, sizes.vigor, seed),
        *m6doc_jobs(sizes.m6doc, seed),
        *loki_jobs(sizes.loki, seed),
        *dmimage_jobs(sizes.dmimage_fakes, sizes.dmimage_reals, seed),
    ]


def paint(job: Job) -> tuple[str, bytes, GroundTruth, list[Block] | None]:
    """Return one picture: (file, JPEG, ground truth, layout if it is a page)."""
    rng = np.random.default_rng(job.seed)
    layout = None
    if job.category == "doc":
        layout = jitter(sample_layout(rng, job.options["variant"]), rng)
    shot = world.shoot(job.category, rng, size=SIZE, layout=layout, **job.options)
    classes = PLAN["classes"].get(shot.facts.get("subject", ""), ((0, ""),))
    index, synset = classes[job.seed[-1] % len(classes)]
    file, path = (
        name.replace("<index3>", f"{index:03d}").replace("<index>", str(index)).replace("<synset>", synset)
        for name in (job.file, job.path)
    )
    return file, shot.jpeg, shot.truth(path), layout


def pairs(videos: int, seed: int) -> dict[str, list[list[str]]]:
    """Return the splits: pairs of video ids that swap faces with one another, so both lie in one split."""
    order = np.random.default_rng([seed, 9, 0]).permutation(videos)
    drawn = [[f"{int(a):03d}", f"{int(b):03d}"] for a, b in order.reshape(-1, 2)]
    held_out = max(1, round(0.14 * len(drawn)))  # of the pairs, for either split, as in the official ones
    return {"train": drawn[2 * held_out :], "val": drawn[held_out : 2 * held_out], "test": drawn[:held_out]}


def video_jobs(videos: int, frames: int, seed: int) -> list[VideoJob]:
    """Return every original and its four manipulations, with the target's person, light and movement."""
    swaps = [pair for split in pairs(videos, seed).values() for pair in split]
    source = dict([*swaps, *(reversed(pair) for pair in swaps)])
    return [
        VideoJob(method, f"{target}_{source[target]}" if method else target, frames, (seed, 9, int(target)))
        for method in (None, *ffpp.METHODS)
        for target in sorted(source)
    ]


def encode(frames: list[np.ndarray]) -> bytes:
    """Return an MP4 of frames (H, W, 3) uint8 with even sides.

    H.264, rate factor 23 (what "c23" means), YUV 4:2:0, 25 a second. The encoder's own notes in the stream
    are left out; one thread, so equal frames make equal bytes.
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


def film(job: VideoJob) -> tuple[str, bytes, list[GroundTruth]]:
    """Return one video: (file, MP4, ground truth of each frame)."""
    shots = world.shoot_video(np.random.default_rng(job.seed), frames=job.frames, manipulation=job.method)
    folder = f"manipulated_sequences/{job.method}" if job.method else "original_sequences/youtube"
    frames = [ffpp.frame_id(job.method, job.video, f"{n:03d}.png") for n in range(job.frames)]
    truths = [shot.truth(frame) for frame, shot in zip(frames, shots, strict=True)]
    return f"ffpp/{folder}/c23/videos/{job.video}.mp4", encode([shot.pixels for shot in shots]), truths


def _run(work: Callable[[T], R], items: list[T], workers: int, desc: str, unit: str) -> Iterator[R]:
    """Yield the results in the items' order."""
    with ProcessPoolExecutor(workers) as executor:
        yield from track(executor.map(work, items, chunksize=16), desc, total=len(items), unit=unit)


def _write(file: Path, content: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def _compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":")) + "\n"


def _write_cvusa_splits(out: Path, files: list[str]) -> None:
    """Write four in five for training; the rows name street views and annotations too."""
    names = [Path(file).stem for file in files]
    rows = [f"bingmap/19/{n}.jpg,streetview/panos/{n}.jpg,streetview/annotations/{n}.png\n" for n in names]
    held_out = rows[4::5]
    _write(out / "cvusa/splits/train-19zl.csv", "".join(row for row in rows if row not in held_out))
    _write(out / "cvusa/splits/val-19zl.csv", "".join(held_out))


def _write_coco(out: Path, pages: dict[str, list[Block]]) -> None:
    """Write M6Doc's annotation files: boxes in pixels, classes by their numbers."""
    categories = [{"supercategory": "", "id": n, "name": name} for n, name in enumerate(m6doc.CATEGORIES)]
    splits: dict[str, dict[str, list[dict]]] = {}
    for file, layout in pages.items():
        _, split, name = file.split("/")
        coco = splits.setdefault(split, {"images": [], "annotations": []})
        page = len(coco["images"]) + 1
        coco["images"].append({"id": page, "file_name": name, "width": SIZE, "height": SIZE})
        classes = PLAN["m6doc_classes"][name.split("_")[0]]
        for block in layout:
            x0, y0, x1, y1 = (v * SIZE for v in block.box)
            bbox = [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)]
            row = {"id": len(coco["annotations"]) + 1, "image_id": page}
            row |= {"category_id": m6doc.CATEGORIES.index(classes[block.kind]), "bbox": bbox}
            coco["annotations"].append(row | {"area": round(bbox[2] * bbox[3], 2), "iscrowd": 0})
    for split, coco in splits.items():
        file = out / f"m6doc/annotations/instances_{split}.json"
        _write(file, _compact(coco | {"categories": categories}))


def _write_loki(out: Path, truths: list[GroundTruth], seed: int) -> None:
    """Write both JSON files of LOKI; people described two of three fakes that show something."""
    rows: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    for n, truth in enumerate(truths):
        path = truth.path.removeprefix("loki/")
        kind, category = ("fake" if truth.label == FAKE else "real"), path.split("/")[1]
        for claim, words in (("fake", "generated by AI"), ("real", "a real one")):
            row = {"image_path": path, "question": f"Is this image {words}?"}
            row |= {"answer": "Yes" if claim == kind else "No"}
            row |= {"metric": "open-ended", "modality": "image-text"}
            row |= {"question_type": f"image_tf_image_{kind}_ask_{claim}_{category}", "choices": None}
            rows.append(row | {"id": len(rows)})
        if truth.artifacts and n % 3:
            problems = export_words.loki_problems(truth, SIZE, np.random.default_rng([seed, 11, n]))
            row = {"image_path": path, "question": "What is wrong with this image?"}
            row |= {"metric": "image-model-as-judge", "modality": "image-text", "problems": problems}
            described.append(row | {"id": len(described)})
    folder = out / "loki/data_json/image"
    _write(folder / "true_or_false.json", _compact(rows))
    _write(folder / "open_ended_vqa.json", _compact(described).encode("utf-16"))


def _write_faces(out: Path, splits: dict[str, list], seed: int, frames: Iterable[GroundTruth]) -> None:
    """Write FF++'s splits, and DD-VQA: all test videos, and the videos of every fourth training pair."""
    for split, listed in splits.items():
        _write(out / f"ffpp/splits/{split}.json", json.dumps(listed) + "\n")
    chosen = {video: "train" for pair in splits["train"][::4] for video in pair}
    chosen |= {video: "test" for pair in splits["test"] for video in pair}
    mids = {method: mid for mid, method in ddvqa.METHODS.items()}
    names = {None: "Original", "NeuralTextures": "Neuraltexture"}  # the release's spelling
    content: dict[tuple[str, str], dict[str, dict]] = {}
    for truth in frames:
        parts = truth.path.split("/")  # ff++ / real / youtube / c23 / frames / <video> / <frame>
        method, video = (parts[2] if parts[1] == "fake" else None), parts[5]
        target = video.split("_")[0]
        if parts[6] == "000.png" and target in chosen:
            rng = np.random.default_rng([seed, 10, int(target), int(mids[method])])
            entry = export_words.ddvqa_entry(truth, int(rng.integers(1, 4)), rng)
            entries = content.setdefault((chosen[target], names.get(method, method)), {})
            entries[f"{mids[method]}_{video}"] = entry
    for (split, name), entries in content.items():
        _write(out / f"ddvqa/{split}_set/{name}/{name}.json", json.dumps(entries, indent=1) + "\n")


def _spoil(out: Path, files: list[str], copies: int) -> None:
    """Copy photographs to a second generator and add broken files, as the real corpus has them."""
    photographs = [f for f in files if f.startswith("genimage/Midjourney/train/nature/")][:copies]
    for file in photographs:
        shutil.copyfile(out / file, out / file.replace("/Midjourney/", "/BigGAN/"))
    image = (out / next(f for f in files if "/ADM/train/ai/" in f)).read_bytes()
    _write(out / "genimage/ADM/train/ai/416_adm_45.JPEG", image[: len(image) // 2])
    _write(out / "genimage/Wukong/train/nature/n02099601_404.JPEG", b"")
    page = "<html><body>503 Service Unavailable</body></html>\n"
    _write(out / "genimage/GLIDE/train/nature/n02099601_503.JPEG", page)


def export(out: Path, seed: int = 17, sizes: Sizes | None = None, workers: int = 1) -> dict[str, int]:
    """Write all corpora and `truth.jsonl` below `out`, in place of old ones; other files are left alone.

    Returns:
        bytes by corpus, and of the truth.

    Raises:
        UserError: the number of videos is odd.
    """
    sizes = sizes or Sizes()
    if sizes.videos % 2:
        raise UserError(f"{sizes.videos} videos do not make pairs", "take an even number")
    for corpus in CORPORA:
        shutil.rmtree(out / corpus, ignore_errors=True)
    files, ground_truth, layouts, faces = [], [], {}, []
    for file, data, truth, layout in _run(paint, jobs(sizes, seed), workers, "painting", "img"):
        _write(out / file, data)
        files.append(file)
        ground_truth.append(truth)
        if file.startswith("m6doc/"):
            layouts[file] = layout
    videos = video_jobs(sizes.videos, sizes.frames, seed)
    for file, data, frames in _run(film, videos, workers, "filming", "video"):
        _write(out / file, data)
        faces += frames
    _write_faces(out, pairs(sizes.videos, seed), seed, faces)
    _write_cvusa_splits(out, [f for f in files if f.startswith("cvusa/")])
    _write_coco(out, layouts)
    _write_loki(out, [t for t in ground_truth if t.path.startswith("loki/")], seed)
    _spoil(out, files, sizes.copies)
    write_ground_truth(sorted([*ground_truth, *faces], key=lambda t: t.path), out / "truth.jsonl")
    weights = {c: sum(f.stat().st_size for f in (out / c).rglob("*") if f.is_file()) for c in CORPORA}
    return weights | {"truth.jsonl": (out / "truth.jsonl").stat().st_size}

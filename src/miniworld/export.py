"""Writes the miniature's corpora in the layouts of the real ones: `fakevlm world --out embedded --seed 17`.

Beside the corpora comes `ground_truth.jsonl`, which no real corpus has. All images are JPEG: in
the real GenImage the file format gives the label away. Equal seed and amounts make equal bytes; a picture has
a seed of its own and does not depend on how many others are made. export.yaml says what the corpora hold."""

import io
import json
import shutil
import signal
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import yaml

from fakevlm.data.clues import KINDS
from fakevlm.data.corpora import ddvqa, ffpp, imagefolders, m6doc
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.page_layout import STYLES, Block, jitter
from fakevlm.data.records import FAKE, REAL
from fakevlm.progress import track
from miniworld import export_words, world
from miniworld.scenes.page import sample_layout

PLAN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CORPORA = ("genimage", "chameleon", "cvusa", "vigor", "m6doc", "ffpp", "loki", "dmimage", "ddvqa")
SIZE = 96  # pixels a side
FRAMES = 4  # a video
# Without `cpu-independent` the encoder's choices depend on where its buffers happen to lie in memory.
_H264 = {"crf": "23", "preset": "medium", "x264-params": "cpu-independent=1"}


def amounts(scale: float = 1.0) -> dict[str, int]:
    """Return how many of what to draw, `scale` times those in export.yaml: at least two, videos in pairs."""
    numbers = {name: max(2, round(n * scale)) for name, n in PLAN["amounts"].items()}
    return numbers | {"videos": max(6, 2 * round(numbers["videos"] / 2))}


class Job(NamedTuple):
    """One picture or video to be drawn."""

    file: str  # below the export's folder; `{index}` and `{synset}` are the ImageNet class of what is drawn
    path: str  # its record's, as the corpus's reader makes it; a video's has `{frame}` in it
    category: str
    seed: tuple[int, ...]  # of its own random generator
    options: dict[str, Any]  # of `world.shoot` or `world.shoot_video`


def genimage_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield half generated images, half photographs."""
    generators, categories = list(PLAN["generators"].items()), PLAN["genimage_categories"]
    for i in range(n):
        generator, entry = generators[i // 2 % len(generators)]
        k = i // (2 * len(generators))
        fake, split = i % 2 == 1, "val" if k % 7 == 6 else "train"
        options = {"fake": True, "kinds": entry["kinds"]} if fake else {}
        file = f"ILSVRC2012_val_{i + 1:08d}.JPEG" if split == "val" else f"{{synset}}_{i + 1}.JPEG"
        if fake:
            file = entry["file"].format(n=k) + ".JPEG"
        place = f"genimage/{entry['folder']}/{split}/{'ai' if fake else 'nature'}/{file}"
        path = imagefolders.genimage_id(FAKE if fake else REAL, generator, file)
        yield Job(place, path, categories[(k + i // 2) % len(categories)], (seed, 1, i), options)


def chameleon_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield fakes with one faint artifact each; every seventh shows none at all."""
    for i in range(n):
        name = uuid.UUID(bytes=np.random.default_rng([seed, 2, i, 1]).bytes(16), version=4)
        kind, count = ("real", "fake")[i % 2], (0, 0) if i // 2 % 7 == 3 else (1, 1)
        options = {"fake": True, "count": count, "strength": (0.5, 0.8)} if i % 2 else {}
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
        yield Job(f"m6doc/{split}2017/{name}", f"doc/real/{name}", "doc", (seed, 5, i), {"variant": style})


def loki_jobs(per_category: int, seed: int) -> Iterator[Job]:
    """Yield seven categories; fakes may show kinds that FakeClue-mini never does."""
    for c, (folder, category) in enumerate(PLAN["loki_folders"].items()):
        for i in range(per_category):
            options: dict[str, Any] = {"style": "loki"}
            if i % 5 >= 2:
                options |= {"fake": True, "kinds": tuple(KINDS), "strength": (0.5, 1.0)}
            options |= {"variant": STYLES[i % len(STYLES)]} if category == "doc" else {}
            path = f"loki/image/{folder}/{i:04d}.jpg"
            yield Job(path, path, category, (seed, 6, c, i), options)


def dmimage_jobs(fakes: int, reals: int, seed: int) -> Iterator[Job]:
    """Yield one folder a generator, three folders of photographs."""
    for kind, stream, n in (("fake", 7, fakes), ("real", 8, reals)):
        for g, (folder, entry) in enumerate(PLAN[f"dmimage_{kind}s"].items()):
            flawed = {"fake": True, "kinds": entry["kinds"]} if kind == "fake" else {}
            for i in range(n):
                file, category = f"{folder}/{i:05d}.jpg", entry["shows"][i % len(entry["shows"])]
                options, job_seed = {"style": "dmimage"} | flawed, (seed, stream, g, i)
                yield Job(f"dmimage/{file}", f"dmimage/{kind}/{file}", category, job_seed, options)


def paint(job: Job) -> tuple[str, bytes, GroundTruth, list[Block] | None]:
    """Return one picture: (file, JPEG, ground truth, layout if it is a page)."""
    rng = np.random.default_rng(job.seed)
    layout = None
    if job.category == "doc":
        layout = jitter(sample_layout(rng, job.options["variant"]), rng)
    shot = world.shoot(job.category, rng, size=SIZE, layout=layout, **job.options)
    classes = PLAN["classes"].get(shot.facts["subject"], ((0, ""),))
    index, synset = classes[job.seed[-1] % len(classes)]
    file, path = (name.format(index=index, synset=synset) for name in (job.file, job.path))
    return file, shot.jpeg, shot.ground_truth(path), layout


def pairs(videos: int, seed: int) -> dict[str, list[list[str]]]:
    """Return the splits: pairs of video ids that swap faces with one another, so both lie in one split."""
    order = np.random.default_rng([seed, 9, 0]).permutation(videos)
    drawn = [[f"{int(a):03d}", f"{int(b):03d}"] for a, b in order.reshape(-1, 2)]
    held_out = max(1, round(0.14 * len(drawn)))  # of the pairs, for either split, as in the official ones
    return {"train": drawn[2 * held_out :], "val": drawn[held_out : 2 * held_out], "test": drawn[:held_out]}


def video_jobs(videos: int, seed: int) -> list[Job]:
    """Return every original and its four manipulations, with the target's person, light and movement."""
    swaps = [pair for split in pairs(videos, seed).values() for pair in split]
    source = dict([*swaps, *(reversed(pair) for pair in swaps)])
    jobs = []
    for method in (None, *ffpp.METHODS):
        folder = f"manipulated_sequences/{method}" if method else "original_sequences/youtube"
        for target in sorted(source):
            video = f"{target}_{source[target]}" if method else target
            file = f"ffpp/{folder}/c23/videos/{video}.mp4"
            path = ffpp.frame_id(method, video, "{frame:03d}.png")
            jobs.append(Job(file, path, "deepfake", (seed, 9, int(target)), {"manipulation": method}))
    return jobs


def encode(frames: list[np.ndarray]) -> bytes:
    """Return an MP4 of frames (H, W, 3) uint8: H.264, rate factor 23 (what "c23" means), 25 a second."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=_H264)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # with this, and without the encoder's notes, equal frames make equal bytes
        notes = av.bitstream.BitStreamFilterContext("filter_units=remove_types=6", stream)
        packets = [p for pixels in frames for p in stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24"))]
        for packet in [*packets, *stream.encode(None), None]:
            container.mux(notes.filter(packet))
    return out.getvalue()


def film(job: Job) -> tuple[str, bytes, list[GroundTruth]]:
    """Return one video: (file, MP4, ground truth of each frame)."""
    shots = world.shoot_video(np.random.default_rng(job.seed), frames=FRAMES, **job.options)
    ground_truths = [shot.ground_truth(job.path.format(frame=n)) for n, shot in enumerate(shots)]
    return job.file, encode([shot.pixels for shot in shots]), ground_truths


def _write(file: Path, content: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def _write_json(file: Path, content: Any, *, encoding: str = "utf-8", **layout: Any) -> None:
    """Write compact JSON, or in another `layout` (arguments of `json.dumps`)."""
    layout = layout or {"separators": (",", ":")}
    _write(file, (json.dumps(content, **layout) + "\n").encode(encoding))


def _write_coco(out: Path, pages: dict[str, list[Block]]) -> None:
    """Write M6Doc's annotation files: boxes in pixels, classes by their numbers."""
    categories = [{"supercategory": "", "id": n, "name": name} for n, name in enumerate(m6doc.CATEGORIES)]
    splits: dict[str, dict[str, list[dict]]] = {}
    for file, layout in pages.items():
        _, split, name = file.split("/")
        coco = splits.setdefault(split, {"images": [], "annotations": [], "categories": categories})
        page = len(coco["images"]) + 1
        coco["images"].append({"id": page, "file_name": name, "width": SIZE, "height": SIZE})
        classes = PLAN["m6doc_classes"][name.split("_")[0]]
        for block in layout:
            x0, y0, x1, y1 = (v * SIZE for v in block.box)
            x, y, w, h = (round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0))
            row = {"id": len(coco["annotations"]) + 1, "image_id": page}
            row |= {"category_id": m6doc.CATEGORIES.index(classes[block.kind]), "bbox": [x, y, w, h]}
            coco["annotations"].append(row | {"area": round(w * h, 2), "iscrowd": 0})
    for split, coco in splits.items():
        _write_json(out / f"m6doc/annotations/instances_{split}.json", coco)


def _write_loki(out: Path, ground_truths: list[GroundTruth], seed: int) -> None:
    """Write both JSON files of LOKI; people described two of three fakes that show something."""
    rows, described = [], []
    for n, ground_truth in enumerate(ground_truths):
        path = ground_truth.path.removeprefix("loki/")
        kind, category = ("fake" if ground_truth.label == FAKE else "real"), path.split("/")[1]
        for claim, words in (("fake", "generated by AI"), ("real", "a real one")):
            row = {"image_path": path, "question": f"Is this image {words}?"}
            row |= {"answer": "Yes" if claim == kind else "No"}
            row |= {"metric": "open-ended", "modality": "image-text"}
            row |= {"question_type": f"image_tf_image_{kind}_ask_{claim}_{category}", "choices": None}
            rows.append(row | {"id": len(rows)})
        if ground_truth.artifacts and n % 3:
            problems = export_words.loki_problems(ground_truth, SIZE, np.random.default_rng([seed, 11, n]))
            row = {"image_path": path, "question": "What is wrong with this image?"}
            row |= {"metric": "image-model-as-judge", "modality": "image-text", "problems": problems}
            described.append(row | {"id": len(described)})
    folder = out / "loki/data_json/image"
    _write_json(folder / "true_or_false.json", rows)
    _write_json(folder / "open_ended_vqa.json", described, encoding="utf-16")


def _write_faces(out: Path, splits: dict[str, list], seed: int, frames: Iterable[GroundTruth]) -> None:
    """Write FF++'s splits, and DD-VQA: all test videos, and the videos of every fourth training pair."""
    for split, listed in splits.items():
        _write_json(out / f"ffpp/splits/{split}.json", listed, indent=None)
    chosen = {video: "train" for pair in splits["train"][::4] for video in pair}
    chosen |= {video: "test" for pair in splits["test"] for video in pair}
    mids = {method: mid for mid, method in ddvqa.METHODS.items()}
    names = {None: "Original", "NeuralTextures": "Neuraltexture"}  # the release's spelling
    content: dict[tuple[str, str], dict[str, dict]] = {}
    for ground_truth in frames:
        parts = ground_truth.path.split("/")  # ff++ / real / youtube / c23 / frames / <video> / <frame>
        method, video = (parts[2] if parts[1] == "fake" else None), parts[5]
        target = video.split("_")[0]
        if parts[6] == "000.png" and target in chosen:
            rng = np.random.default_rng([seed, 10, int(target), int(mids[method])])
            entry = export_words.ddvqa_entry(ground_truth, int(rng.integers(1, 4)), rng)
            entries = content.setdefault((chosen[target], names.get(method, method)), {})
            entries[f"{mids[method]}_{video}"] = entry
    for (split, name), entries in content.items():
        _write_json(out / f"ddvqa/{split}_set/{name}/{name}.json", entries, indent=1)


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


def export(out: Path, seed: int, numbers: Mapping[str, int], workers: int = 1) -> dict[str, int]:
    """Write all corpora and `ground_truth.jsonl` below `out`, in place of old ones; return bytes by corpus.

    `numbers` says how many of what, as `amounts` does. The number of workers, processes, changes no byte.
    """
    for corpus in CORPORA:
        shutil.rmtree(out / corpus, ignore_errors=True)
    files, ground_truths, layouts, faces = [], [], {}, []
    videos = video_jobs(numbers["videos"], seed)
    todo = [
        *genimage_jobs(numbers["genimage"], seed),
        *chameleon_jobs(numbers["chameleon"], seed),
        *satellite_jobs(numbers["cvusa"], numbers["vigor"], seed),
        *m6doc_jobs(numbers["m6doc"], seed),
        *loki_jobs(numbers["loki"], seed),
        *dmimage_jobs(numbers["dmimage_fakes"], numbers["dmimage_reals"], seed),
    ]
    # Ctrl-C ends this process, and it the workers.
    executor = ProcessPoolExecutor(workers, None, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        painted, filmed = executor.map(paint, todo, chunksize=16), executor.map(film, videos, chunksize=16)
        for file, data, ground_truth, layout in track(painted, "painting", total=len(todo)):
            _write(out / file, data)
            files.append(file)
            ground_truths.append(ground_truth)
            if file.startswith("m6doc/"):
                layouts[file] = layout
        for file, data, frames in track(filmed, "filming", total=len(videos), unit="video"):
            _write(out / file, data)
            faces += frames
    finally:
        executor.shutdown(cancel_futures=True)  # those not yet painted after a full disk or Ctrl-C
    _write_faces(out, pairs(numbers["videos"], seed), seed, faces)
    names = [Path(file).stem for file in files if file.startswith("cvusa/")]
    rows = [f"bingmap/19/{n}.jpg,streetview/panos/{n}.jpg,streetview/annotations/{n}.png\n" for n in names]
    _write(out / "cvusa/splits/val-19zl.csv", "".join(rows[4::5]))
    del rows[4::5]
    _write(out / "cvusa/splits/train-19zl.csv", "".join(rows))
    _write_coco(out, layouts)
    _write_loki(out, [t for t in ground_truths if t.path.startswith("loki/")], seed)
    _spoil(out, files, numbers["copies"])
    write_ground_truth(sorted([*ground_truths, *faces], key=lambda t: t.path), out / "ground_truth.jsonl")
    weights = {c: sum(f.stat().st_size for f in (out / c).rglob("*") if f.is_file()) for c in CORPORA}
    return weights | {"ground_truth.jsonl": (out / "ground_truth.jsonl").stat().st_size}

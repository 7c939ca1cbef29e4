"""Stage 1: all corpora become records, checked, without duplicates; synthetic documents and satellite images are added.

What it writes, below one folder:

* `records/`: the training corpora and the synthesized images.
* `benchmarks/{loki,dmimage,ddvqa,ffpp}/`: images to test on; `ffpp` repeats the FF++ records of the official test split. One
  that the profile leaves out is there and empty.
* `truth.jsonl`: what is known of the images; empty where nothing is.
* `quarantine.csv`, `duplicates.csv`, `leakage.csv`, `sources.csv`: what was set aside, dropped, found on both sides, counted.

Where `collect.corpora.fakeclue` is set, the records are the released FakeClue's, with its texts and split and every image that it
lists; FF++ then serves the benchmarks alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fakevlm import paths
from fakevlm.collection.amounts import Amount, drawn, expected, folder, planned
from fakevlm.collection.kept import Kept, source, stamp
from fakevlm.collection.leakage import Leakage
from fakevlm.collection.perceptual import phash
from fakevlm.collection.sieve import Sieve
from fakevlm.config.params import Params
from fakevlm.data.corpora import (
    chameleon,
    cvusa,
    ddvqa,
    dmimage,
    faces,
    fakeclue,
    ffpp,
    genimage,
    loki,
    m6doc,
    video,
    vigor,
)
from fakevlm.data.corpora.faces import Cropper, make_cropper
from fakevlm.data.corpora.files import Quarantine
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth, write_ground_truth
from fakevlm.data.records import REAL, Record, read_frame, read_records, write_records
from fakevlm.errors import UserError
from fakevlm.progress import track
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from fakevlm.synthesis.satellite.aerials import Aerials, square
from fakevlm.synthesis.satellite.generate import generate, need_aerials
from fakevlm.tools import verify

BENCHMARKS = ("loki", "dmimage", "ddvqa", "ffpp")


@dataclass
class Collected:
    """What the collection found, as the stage's CSV files hold it.

    Attributes:
        quarantine: corpus, path, reason.
        duplicates: sha256, kept, dropped.
        leakage: benchmark, path, train_path, kind, distance: one image in a benchmark, and one like it among what may be
            trained on (see `leakage.Leakage`).
        flat: benchmark, or "training" → images without contrast, of which `leakage` compares the bytes alone.
        sources: source, label, generator, n, of the training corpora.
        benchmarks: benchmark → number of records.
    """

    quarantine: pd.DataFrame
    duplicates: pd.DataFrame
    leakage: pd.DataFrame
    sources: pd.DataFrame
    benchmarks: dict[str, int]
    flat: dict[str, int]


def _training(
    params: Params, amounts: dict[str, Amount], quarantine: Quarantine, crop: Cropper | None, kept: Kept
) -> Iterator[tuple[str, Iterable[Record]]]:
    """(corpus, its records) for every training corpus that params names."""
    settings = params.collect
    frames = settings.frames_per_video
    # Each asks the lot by an image's name: 500 GB would take hours to read, only to keep a few percent of them.
    readers: dict[str, Callable[[Path, Callable[[str], bool]], Iterable[Record]]] = {
        "genimage": lambda root, chosen: genimage.read(root, chosen),
        "ffpp": lambda root, chosen: ffpp.read(root, frames, quarantine, crop=crop, drawn=chosen, kept=kept),
        "chameleon": lambda root, chosen: chameleon.read(root, chosen),
        "cvusa": lambda root, chosen: cvusa.read(root, quarantine, chosen),
        "vigor": lambda root, chosen: vigor.read(root, chosen),
        "m6doc": lambda root, chosen: m6doc.read(root, quarantine, drawn=chosen),
    }
    if settings.corpora.fakeclue:  # never thinned
        readers = {"fakeclue": lambda root, _: fakeclue.read(root, quarantine)}
    for corpus, read in readers.items():
        if corpus in amounts:
            amount = amounts[corpus]
            chosen = partial(drawn, share=amount.share, seed=params.seed)
            yield corpus, track(read(amount.root, chosen), corpus, total=round(amount.drawn) or None)


def _synthetic(
    params: Params, ground_truth: dict[str, GroundTruth], aerials: Aerials | None, kept: Kept
) -> Iterator[tuple[str, Iterable[Record]]]:
    """(corpus, records) of what is synthesized; their truth is added to `ground_truth` as they come."""
    settings = params.collect

    def remember(made: Iterable[tuple[Record, GroundTruth | None]]) -> Iterator[Record]:
        for record, truth in made:
            if truth is not None:
                ground_truth[truth.path] = truth
            yield record

    root = folder(settings.corpora.m6doc)
    pages = m6doc.usable_layouts(root) if root is not None and settings.synthetic_documents else []
    drawn_pages = synthesize_documents(pages, settings.synthetic_documents, params.seed, settings.renderer)
    yield "documents", remember(drawn_pages)
    painted = synthesize_satellites(settings.synthetic_satellites, params.seed, settings.renderer)
    yield "satellites", remember(painted)
    if aerials is not None:
        aerials.close()
        known = settings.truth is not None
        work = paths.runs("satellites")
        made = generate(aerials, settings.satellites, params.seed, work, measured=known, kept=kept)
        yield "satellites", remember(made)


def _ffpp_test(records: Path) -> Iterator[Record]:
    """The collected FF++ records of the official test split."""
    frame = read_frame(records, ["source", "split"])
    total = int(((frame["source"] == "ff++") & (frame["split"] == "test")).sum())
    yield from track(
        read_records(records, {"source": "ff++", "split": "test"}), "benchmark ffpp", total=total
    )


def _benchmark(
    name: str, params: Params, records: Path, quarantine: Quarantine, crop: Cropper | None, kept: Kept
) -> Iterable[Record] | None:
    """The records of a benchmark, None if params leaves it out."""
    settings = params.collect
    videos = folder(settings.corpora.ffpp)
    # The release, or a thinned FF++, holds only some of its test frames.
    if name == "ffpp" and videos and (settings.corpora.fakeclue or "ffpp" in settings.at_most):
        frames = ffpp.read(
            videos, settings.frames_per_video, quarantine, crop=crop, splits=("test",), kept=kept
        )
        return track(frames, "benchmark ffpp")
    if name == "ffpp":
        return _ffpp_test(records) if videos else None
    root = folder(getattr(settings.benchmarks, name))
    if root is None:
        return None
    if name == "ddvqa" and videos is None:
        raise UserError(
            "collect.benchmarks.ddvqa is set, but collect.corpora.ffpp is null: DD-VQA asks about FF++'s frames",
            "name FF++'s folder too, or leave DD-VQA out",
        )
    frames = settings.frames_per_video
    if name == "loki":
        found = loki.read(root, quarantine)
    elif name == "dmimage":
        found = dmimage.read(root)
    else:
        found = ddvqa.read(root, videos, frames, quarantine=quarantine, crop=crop, kept=kept)
    return track(found, f"benchmark {name}", total=expected(name, root, frames))


def _looks(_: Record, image: Image.Image) -> int | None:
    return phash(image)


def _decoding(params: Params) -> Any:
    """What decides, beside the video, the frames that are taken from it."""
    crop = params.collect.face_crop
    model = stamp(paths.resolve(crop.model)) if crop is not None and crop.model is not None else None
    return [crop and crop.model_dump(), model, source([faces, video])]


def collect(params: Params, out: Path | None = None) -> Collected:
    """Runs the stage; the same inputs give the same bytes.

    Interrupted, it reads anew, but decodes no video and samples no image twice (`runs/collect/<profile>/`, until `paths.forget`),
    and the generators' training goes on.

    Args:
        out: where to write; `artifacts/collect` by default.

    Raises:
        UserError: a corpus is missing or not in its layout, or no corpus is named at all.
    """
    verify.need(params)
    amounts = planned(params)
    out = out or paths.artifacts("collect")
    out.mkdir(parents=True, exist_ok=True)
    quarantine = Quarantine()
    crop = make_cropper(params.collect.face_crop)
    kept = Kept(paths.runs("collect", params.profile), _decoding(params))
    ground_truth = read_ground_truth(folder(params.collect.truth))
    # The release is taken as it is, copies and all: its numbers are held against other people's.
    sieve = Sieve(quarantine, unique=params.collect.corpora.fakeclue is None)
    counts, leakage = Counter(), Leakage(params.collect.leakage_distance)
    known: set[str] = set()  # the collected images whose truth there is

    models = params.collect.satellites
    if models is not None:
        need_aerials(sum(amounts[key].drawn for key in ("cvusa", "vigor") if key in amounts), models)
    aerials = Aerials(paths.runs("satellites"), models, params.seed) if models is not None else None

    def aerial(record: Record) -> bool:
        return aerials is not None and record.source == "satellite" and record.label == REAL

    def see(record: Record, image: Image.Image) -> tuple[int | None, np.ndarray | None]:
        return phash(image), square(image, models.image_size) if aerial(record) else None

    def note(record: Record, seen: tuple[int | None, np.ndarray | None]) -> None:
        looks, pixels = seen
        if pixels is not None:
            aerials.add(record, pixels)
        leakage.trained(record, looks)

    def training() -> Iterator[Record]:
        real = _training(params, amounts, quarantine, crop, kept)
        for part in (real, _synthetic(params, ground_truth, aerials, kept)):
            for corpus, records in part:
                for record in sieve.through(corpus, records, see, note):
                    counts[record.source, record.label, record.generator or ""] += 1
                    if record.id in ground_truth:
                        known.add(record.id)
                    yield record

    total = write_records(training(), out / "records")
    sizes = {}
    for name in BENCHMARKS:
        records = _benchmark(name, params, out / "records", quarantine, crop, kept)
        if records is None:
            write_records(
                [], out / "benchmarks" / name
            )  # what is evaluated on it is then nothing, and no error
            continue
        passed = Sieve(quarantine, unique=False)

        def tested(name: str = name, records=records, passed: Sieve = passed) -> Iterator[Record]:
            for record in passed.through(name, records, _looks, partial(leakage.tested, name)):
                if record.path in ground_truth:
                    known.add(record.path)
                yield record

        sizes[name] = write_records(tested(), out / "benchmarks" / name)
    if not total + sum(sizes.values()):
        raise UserError(
            f"profile {params.profile!r} collects no image",
            "name at least one corpus in collect.corpora or one benchmark in collect.benchmarks",
        )
    write_ground_truth((ground_truth[path] for path in sorted(known)), out / "truth.jsonl")
    rows = [(*key, n) for key, n in sorted(counts.items())]
    found = Collected(
        quarantine.frame(),
        pd.DataFrame(sieve.duplicates, columns=["sha256", "kept", "dropped"]),
        leakage.frame(),
        pd.DataFrame(rows, columns=["source", "label", "generator", "n"]),
        sizes,
        dict(leakage.flat),
    )
    for name in ("quarantine", "duplicates", "leakage", "sources"):
        getattr(found, name).to_csv(out / f"{name}.csv", index=False, lineterminator="\n")
    return found

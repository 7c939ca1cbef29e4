"""Stage collect: read all corpora into records, filter them, add synthetic documents and satellite images.

Writes into one folder:

* `records/`: the training corpora and the synthesized images.
* `benchmarks/<name>/`: images to test on; `ffpp` repeats the FF++ records of the official test split. A
  benchmark that the profile leaves out is an empty folder of records.
* `truth.jsonl`: the ground truth, where there is one.
* `quarantine.csv`, `duplicates.csv`, `leakage.csv`, `sources.csv`: images that cannot be used, were dropped,
  are on both sides; counts.

With `collect.corpora.fakeclue` the records are the released FakeClue's, with its texts, its split and every
image that it lists; FF++ then serves the benchmarks alone.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from fakevlm import cache, paths, plugins
from fakevlm.collection.amounts import (
    BENCHMARKS,
    TRAINING,
    Amount,
    count,
    drawn,
    folder,
    need_folders,
    planned,
)
from fakevlm.collection.filter import Filter, inspect
from fakevlm.collection.leakage import Leakage
from fakevlm.config.params import Params
from fakevlm.data.corpora import ddvqa, ffpp, m6doc
from fakevlm.data.corpora.faces import make_cropper
from fakevlm.data.corpora.files import Unusable
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth, write_ground_truth
from fakevlm.data.records import Record, write_records
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.prefetch import prefetch
from fakevlm.progress import track
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from fakevlm.synthesis.satellite.aerials import Aerials
from fakevlm.synthesis.satellite.generate import generate, need_aerials

Stream = Iterable[Record | Unusable]


@dataclass
class Collected:
    """Results of the collection, as the stage's CSV files hold them."""

    quarantine: pd.DataFrame  # corpus, path, reason; in the order of the records
    duplicates: pd.DataFrame  # sha256, kept, dropped
    leakage: pd.DataFrame  # benchmark, path, train_path, kind, distance (see `leakage.Leakage`)
    sources: pd.DataFrame  # source, label, generator, n, of the training corpora
    benchmarks: dict[str, int]  # number of records
    flat: dict[str, int]  # by benchmark or "training": images without contrast, compared by bytes alone


def _training(
    params: Params, amounts: dict[str, Amount], videos: dict[str, Any]
) -> Iterator[tuple[str, Stream]]:
    """Yield (corpus, its records) for every training corpus that the profile names."""
    for corpus, read in TRAINING.items():
        if corpus in amounts:
            amount = amounts[corpus]
            chosen = partial(drawn, share=amount.share, seed=params.seed)
            records = read(amount.root, drawn=chosen, **(videos if corpus == "ffpp" else {}))
            yield corpus, track(records, corpus, total=round(amount.drawn) or None)
    for other in params.collect.corpora.others or ():
        read = plugins.load(other.reader, {}, "collect.corpora.others[].reader")
        yield other.name, track(read(paths.resolve(other.path)), other.name)


def _benchmark(name: str, params: Params, collected: Path, videos: dict[str, Any]) -> Stream:
    """Return the records of a benchmark, none if it is left out. FF++'s are among those collected."""
    settings = params.collect
    title, faces = f"benchmark {name}", folder(settings.corpora.ffpp)
    for other in settings.benchmarks.others or ():
        if other.name == name:
            read = plugins.load(other.reader, {}, "collect.benchmarks.others[].reader")
            return track(read(paths.resolve(other.path)), title)
    root = faces if name == "ffpp" else folder(getattr(settings.benchmarks, name))
    if root is None:
        return []
    if name == "ffpp":
        # The release, or a thinned FF++, holds only some of its test frames.
        if settings.corpora.fakeclue or "ffpp" in settings.at_most:
            return track(ffpp.read(root, splits=("test",), **videos), title)
        records, split = Records(collected), pd.Series({"source": "ff++", "split": "test"})
        rows = columns_of(records, list(split.index)).eq(split).all(axis=1)
        return track(records.take(rows.to_numpy().nonzero()[0]), title)
    total = count(name, root, settings.frames_per_video)
    if name != "ddvqa":
        return track(BENCHMARKS[name](root), title, total)
    if faces is None:
        raise UserError(
            "collect.benchmarks.ddvqa is set, but collect.corpora.ffpp, which has its frames, is null",
            "name FF++'s folder too, or leave DD-VQA out",
        )
    return track(ddvqa.read(root, faces, **videos), title, total)


def _synthetic(
    params: Params, ground_truth: dict[str, GroundTruth], aerials: Aerials | None, values: cache.Cache | None
) -> Iterator[tuple[str, Iterable[Record]]]:
    """Yield (corpus, records) of the synthesized images; add their ground truth to `ground_truth`."""
    settings, renderer = params.collect, params.collect.renderer

    def remember(pairs: Iterable[tuple[Record, GroundTruth | None]]) -> Iterator[Record]:
        for record, truth in pairs:
            if truth is not None:
                ground_truth[truth.path] = truth
            yield record

    root = folder(settings.corpora.m6doc)
    pages = m6doc.usable_layouts(root) if root is not None and settings.synthetic_documents else []
    documents = synthesize_documents(pages, settings.synthetic_documents, params.seed, renderer)
    yield "documents", remember(documents)
    yield "satellites", remember(synthesize_satellites(settings.synthetic_satellites, params.seed, renderer))
    if aerials is not None:
        aerials.close()
        measured = settings.truth is not None
        images = generate(aerials, settings.satellites, params.seed, measured=measured, values=values)
        yield "satellites", remember(images)


def collect(params: Params, out: Path | None = None) -> Collected:
    """Run the stage; the same inputs give the same bytes.

    After a kill images are read again, but no video is decoded and no satellite image sampled twice, and the
    generators' training goes on.

    Args:
        params: the profile.
        out: where to write; `artifacts/collect` by default.

    Raises:
        UserError: a corpus is missing or not in its layout, or no corpus is named at all.
    """
    need_folders(params)
    settings, amounts = params.collect, planned(params)
    out = out or paths.artifacts("collect")
    out.mkdir(parents=True, exist_ok=True)
    models = settings.satellites
    if models is not None:
        aerial = sum(amounts[key].drawn for key in ("cvusa", "vigor") if key in amounts)
        learned = round(aerial * models.learn_share)
        need_aerials(learned, round(aerial) - learned, models, "about ")
    aerials = Aerials(paths.work() / "aerials", models, params.seed) if models is not None else None
    leakage = Leakage(settings.leakage_distance)
    # The release is taken as published, copies and all: its numbers are compared with other people's.
    unique = Filter(unique=settings.corpora.fakeclue is None)
    quarantine = unique.quarantine
    ground_truth = read_ground_truth(folder(settings.truth))
    counts, sizes = Counter(), {}
    with_truth: set[str] = set()  # collected images with a ground truth

    # The generators' weights stay: training them anew takes days at the paper's size.
    satellites = cache.Cache(paths.runs("satellites") / "cache.sqlite") if models is not None else None
    with satellites or contextlib.nullcontext(), cache.work("collect") as values:
        videos = {
            "frames_per_video": settings.frames_per_video,
            "crop": make_cropper(settings.face_crop),
            "values": values,
        }

        def training() -> Iterator[Record]:
            synthetic = _synthetic(params, ground_truth, aerials, satellites)
            for corpus, records in chain(_training(params, amounts, videos), synthetic):
                check = partial(inspect, corpus=corpus, aerial_size=models.image_size if models else None)
                for inspected in prefetch(check, records):
                    if not unique.accepts(corpus, inspected):
                        continue
                    record = inspected.record
                    if inspected.aerial is not None:
                        aerials.add(record, inspected.aerial)
                    leakage.trained(record, inspected.phash)
                    counts[record.source, record.label, record.generator or ""] += 1
                    with_truth.update({record.id} & ground_truth.keys())
                    yield record

        def benchmark(name: str) -> Iterator[Record]:
            every = Filter(unique=False, quarantine=quarantine)
            records = _benchmark(name, params, out / "records", videos)
            for inspected in prefetch(partial(inspect, corpus=name), records):
                if every.accepts(name, inspected):
                    record = inspected.record
                    leakage.tested(name, record, inspected.phash)
                    with_truth.update({record.path} & ground_truth.keys())
                    yield record

        total = write_records(training(), out / "records")
        for name in (*BENCHMARKS, *(other.name for other in settings.benchmarks.others or ())):
            written = write_records(benchmark(name), out / "benchmarks" / name)
            if written or folder(getattr(settings.benchmarks, name, settings.corpora.ffpp)) is not None:
                sizes[name] = written
    if not total + sum(sizes.values()):
        raise UserError(
            f"profile {params.profile!r} collects no image",
            "name at least one corpus in collect.corpora or one benchmark in collect.benchmarks",
        )
    write_ground_truth((ground_truth[path] for path in sorted(with_truth)), out / "truth.jsonl")
    problems = pd.DataFrame(list(dict.fromkeys(quarantine)), columns=Unusable._fields)
    problems["reason"] = problems["reason"].str.split().str.join(" ")
    sources = [(*key, n) for key, n in sorted(counts.items())]
    results = Collected(
        quarantine=problems,
        duplicates=pd.DataFrame(unique.duplicates, columns=["sha256", "kept", "dropped"]),
        leakage=leakage.frame(),
        sources=pd.DataFrame(sources, columns=["source", "label", "generator", "n"]),
        benchmarks=sizes,
        flat=dict(leakage.flat),
    )
    for name in ("quarantine", "duplicates", "leakage", "sources"):
        getattr(results, name).to_csv(out / f"{name}.csv", index=False, lineterminator="\n")
    return results

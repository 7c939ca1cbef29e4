"""Stage collect: read all corpora into records, filter them, add synthetic documents and satellite images.

Writes into one folder:

* `records/`: the training corpora and the synthesized images.
* `benchmarks/<name>/`: images to test on; `ffpp` repeats the FF++ records of the official test split. A
  benchmark that the profile leaves out is an empty folder of records.
* `truth.jsonl`: the ground truth, where there is one.
* `quarantine.csv`, `duplicates.csv`, `leakage.csv`, `sources.csv`: what was set aside, dropped, found on both
  sides, counted.

With `collect.corpora.fakeclue` the records are the released FakeClue's, with its texts, its split and every
image that it lists; FF++ then serves the benchmarks alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd

from fakevlm import cache, paths, plugins
from fakevlm.collection.amounts import Amount, drawn, expected, folder, need_folders, planned
from fakevlm.collection.filter import Filter, inspect
from fakevlm.collection.frames import FrameCache
from fakevlm.collection.leakage import Leakage
from fakevlm.config.params import Params
from fakevlm.data.corpora import (
    chameleon,
    cvusa,
    ddvqa,
    dmimage,
    fakeclue,
    ffpp,
    genimage,
    loki,
    m6doc,
    vigor,
)
from fakevlm.data.corpora.faces import make_cropper
from fakevlm.data.corpora.files import Quarantine, file_stamp
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth, write_ground_truth
from fakevlm.data.records import Record, read_frame, read_records, write_records
from fakevlm.errors import UserError
from fakevlm.prefetch import prefetch
from fakevlm.progress import track
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from fakevlm.synthesis.satellite.aerials import Aerials
from fakevlm.synthesis.satellite.generate import generate, need_aerials

BENCHMARKS = ("loki", "dmimage", "ddvqa", "ffpp")


@dataclass
class Collected:
    """Results of the collection, as the stage's CSV files hold them.

    Attributes:
        quarantine: corpus, path, reason.
        duplicates: sha256, kept, dropped.
        leakage: benchmark, path, train_path, kind, distance (see `leakage.Leakage`).
        sources: source, label, generator, n, of the training corpora.
        benchmarks: benchmark → number of records.
        flat: benchmark, or "training" → images without contrast, of which `leakage` compares the bytes alone.
    """

    quarantine: pd.DataFrame
    duplicates: pd.DataFrame
    leakage: pd.DataFrame
    sources: pd.DataFrame
    benchmarks: dict[str, int]
    flat: dict[str, int]


class _Readers:
    """The readers of the profile's corpora and benchmarks, and what they share."""

    def __init__(self, params: Params, quarantine: Quarantine, values: cache.Cache) -> None:
        self.settings, self.seed = params.collect, params.seed
        self.quarantine = quarantine
        crop = params.collect.face_crop
        # What decides, beside the video, the frames that are taken from it.
        code = cache.code_version("fakevlm.data.corpora.faces", "fakevlm.data.corpora.video")
        model = file_stamp(paths.resolve(crop.model)) if crop and crop.model else None
        frames = FrameCache(values, [crop and crop.model_dump(), model, code])
        self._videos = {"quarantine": quarantine, "crop": make_cropper(crop), "frames": frames}

    def training(self, amounts: dict[str, Amount]) -> Iterator[tuple[str, Iterable[Record]]]:
        """Yield (corpus, its records) for every training corpus that the profile names."""
        frames = self.settings.frames_per_video
        # Readers ask by an image's name whether it is drawn: only what `at_most` leaves is read.
        readers = {
            "genimage": lambda root, chosen: genimage.read(root, chosen),
            "ffpp": lambda root, chosen: ffpp.read(root, frames, drawn=chosen, **self._videos),
            "chameleon": lambda root, chosen: chameleon.read(root, chosen),
            "cvusa": lambda root, chosen: cvusa.read(root, self.quarantine, chosen),
            "vigor": lambda root, chosen: vigor.read(root, chosen),
            "m6doc": lambda root, chosen: m6doc.read(root, self.quarantine, drawn=chosen),
            "fakeclue": lambda root, _: fakeclue.read(root, self.quarantine),
        }
        for corpus, read in readers.items():
            if corpus in amounts:
                amount = amounts[corpus]
                records = read(amount.root, partial(drawn, share=amount.share, seed=self.seed))
                yield corpus, track(records, corpus, total=round(amount.drawn) or None)
        for other in self.settings.corpora.others or ():
            read = plugins.load(other.reader, {}, "collect.corpora.others[].reader")
            yield other.name, track(read(paths.resolve(other.path)), other.name)

    def benchmark(self, name: str, records: Path) -> Iterable[Record]:
        """Return the records of a benchmark; none if the profile leaves it out.

        Args:
            name: of the benchmark.
            records: folder of the collected training records, which hold FF++'s test split.
        """
        settings, frames = self.settings, self.settings.frames_per_video
        videos = folder(settings.corpora.ffpp)
        if name == "ffpp":
            if videos is None:
                return []
            # The release, or a thinned FF++, holds only some of its test frames.
            if settings.corpora.fakeclue or "ffpp" in settings.at_most:
                return track(ffpp.read(videos, frames, splits=("test",), **self._videos), "benchmark ffpp")
            known = read_frame(records, ["source", "split"])
            total = int(((known["source"] == "ff++") & (known["split"] == "test")).sum())
            return track(read_records(records, {"source": "ff++", "split": "test"}), "benchmark ffpp", total)
        root = folder(getattr(settings.benchmarks, name, None))
        for other in settings.benchmarks.others or ():
            if other.name == name:
                read = plugins.load(other.reader, {}, "collect.benchmarks.others[].reader")
                return track(read(paths.resolve(other.path)), f"benchmark {name}")
        if root is None:
            return []
        if name == "ddvqa" and videos is None:
            raise UserError(
                "collect.benchmarks.ddvqa is set, but collect.corpora.ffpp is null: "
                "DD-VQA asks about FF++'s frames",
                "name FF++'s folder too, or leave DD-VQA out",
            )
        readers = {
            "loki": lambda: loki.read(root, self.quarantine),
            "dmimage": lambda: dmimage.read(root),
            "ddvqa": lambda: ddvqa.read(root, videos, frames, **self._videos),
        }
        return track(readers[name](), f"benchmark {name}", expected(name, root, frames))


def _synthetic(
    params: Params, ground_truth: dict[str, GroundTruth], aerials: Aerials | None, values: cache.Cache
) -> Iterator[tuple[str, Iterable[Record]]]:
    """Yield (corpus, records) of what is synthesized; add its ground truth to `ground_truth`."""
    settings, renderer = params.collect, params.collect.renderer

    def remember(pairs: Iterable[tuple[Record, GroundTruth | None]]) -> Iterator[Record]:
        for record, truth in pairs:
            if truth is not None:
                ground_truth[truth.path] = truth
            yield record

    root = folder(settings.corpora.m6doc)
    pages = m6doc.usable_layouts(root) if root is not None and settings.synthetic_documents else []
    yield (
        "documents",
        remember(synthesize_documents(pages, settings.synthetic_documents, params.seed, renderer)),
    )
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
        count = sum(amounts[key].drawn for key in ("cvusa", "vigor") if key in amounts)
        learned = round(count * models.learn_share)
        need_aerials(learned, round(count) - learned, models, "about ")
    aerials = Aerials(paths.work() / "aerials", models, params.seed) if models is not None else None
    quarantine, leakage = Quarantine(), Leakage(settings.leakage_distance)
    # The release is taken as it is, copies and all: its numbers are compared with other people's.
    unique = Filter(quarantine, unique=settings.corpora.fakeclue is None)
    ground_truth = read_ground_truth(folder(settings.truth))
    counts, sizes = Counter(), {}
    known: set[str] = set()  # collected images with a ground truth

    with cache.work("collect") as values:
        readers = _Readers(params, quarantine, values)

        def training() -> Iterator[Record]:
            see = partial(inspect, aerial_size=models.image_size if models else None)
            corpora = chain(readers.training(amounts), _synthetic(params, ground_truth, aerials, values))
            for corpus, records in corpora:
                for item in prefetch(see, records):
                    record = item.record
                    if not unique.accepts(corpus, item):
                        continue
                    if item.aerial is not None:
                        aerials.add(record, item.aerial)
                    leakage.trained(record, item.phash)
                    counts[record.source, record.label, record.generator or ""] += 1
                    if record.id in ground_truth:
                        known.add(record.id)
                    yield record

        def benchmark(name: str) -> Iterator[Record]:
            every = Filter(quarantine, unique=False)
            for item in prefetch(inspect, readers.benchmark(name, out / "records")):
                if every.accepts(name, item):
                    leakage.tested(name, item.record, item.phash)
                    if item.record.path in ground_truth:
                        known.add(item.record.path)
                    yield item.record

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
    write_ground_truth((ground_truth[path] for path in sorted(known)), out / "truth.jsonl")
    results = Collected(
        quarantine=quarantine.frame(),
        duplicates=pd.DataFrame(unique.duplicates, columns=["sha256", "kept", "dropped"]),
        leakage=leakage.frame(),
        sources=pd.DataFrame(
            [(*key, n) for key, n in sorted(counts.items())], columns=["source", "label", "generator", "n"]
        ),
        benchmarks=sizes,
        flat=dict(leakage.flat),
    )
    for name in ("quarantine", "duplicates", "leakage", "sources"):
        getattr(results, name).to_csv(out / f"{name}.csv", index=False, lineterminator="\n")
    return results

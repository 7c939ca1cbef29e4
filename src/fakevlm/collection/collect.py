"""Stage collect: read all corpora into records, filter them, add synthetic documents and satellite images.

Every image takes one way: a reader yields it, `inspect` decodes it, `Filter` keeps it or notes why not,
`Leakage` notes its hash, and `write_records` writes it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fakevlm import cache, paths, plugins
from fakevlm.collection import amounts
from fakevlm.collection.leakage import Leakage, phash
from fakevlm.config.params import Other, Params
from fakevlm.data.corpora import ddvqa, ffpp, m6doc
from fakevlm.data.corpora.faces import make_cropper
from fakevlm.data.corpora.files import BadImage, Unusable, decoded
from fakevlm.data.csv_files import write_csv
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth, write_ground_truth
from fakevlm.data.records import FAKE, REAL, Record, read_frame, write_records
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.prefetch import prefetch
from fakevlm.progress import track
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from fakevlm.synthesis.satellite.aerials import Aerials, square
from fakevlm.synthesis.satellite.generate import generate, need_aerials

Stream = Iterable[Record | Unusable]


class Inspected(NamedTuple):
    """A record and what was computed from its decoded image."""

    record: Record  # with width and height
    phash: int | None  # 64 bits; None for an image without contrast
    aerial: np.ndarray | None  # (s, s, 3) uint8 of a real aerial image, where the generators need it


def inspect(record: Record | Unusable, corpus: str, aerial_size: int | None = None) -> Inspected | Unusable:
    """Decode a record's image, which sets its size, and compute what the collection needs of it.

    `aerial_size` is the side of the aerial images that generators learn from; None: there are no generators.
    """
    if isinstance(record, Unusable):
        return Unusable(*map(_escaped, record))
    if problem := _problem(record):
        return Unusable(corpus, _escaped(record.id), problem)
    try:
        image = decoded(record)
    except BadImage as error:
        return Unusable(corpus, record.id, str(error))
    aerial = aerial_size and record.source == "satellite" and record.label == REAL
    return Inspected(record, phash(image), square(image, aerial_size) if aerial else None)


def _escaped(text: str) -> str:
    """Return a name or a reason as UTF-8 can hold it."""
    return text.encode(errors="backslashreplace").decode()


def _problem(record: Record) -> str | None:
    """Return what in a record other than its image cannot be used; replace half characters in its texts."""
    if record.id != _escaped(record.id):
        return "the file's name is not UTF-8: rename it, or unpack with the right encoding"
    if isinstance(record.label, bool) or record.label not in (FAKE, REAL):
        return f"label {record.label!r}, neither 0 (fake) nor 1 (real)"
    texts = [] if record.question is None else [record.question]
    for text in texts + record.references:
        if not isinstance(text, str) or not text.strip():
            return f"a question or an answer is no text: {text!r}"
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in record.references]
    record.references = texts
    return None


@dataclass
class Filter:
    """Keep readable images, each once, under a unique id."""

    unique: bool = True  # drop copies by content, also under the other label; else the latter are noted alone
    quarantine: list[Unusable] = field(default_factory=list)
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)  # sha256, kept id, dropped id
    _first: dict[bytes, tuple[int, str]] = field(default_factory=dict)  # label and id by content
    _ids: set[str] = field(default_factory=set)

    def kept(self, corpus: str, records: Stream, aerial_size: int | None = None) -> Iterator[Inspected]:
        """Yield the inspected records that are kept, in order; an id that is taken gets a number."""
        for inspected in prefetch(partial(inspect, corpus=corpus, aerial_size=aerial_size), records):
            if isinstance(inspected, Unusable):
                self.quarantine.append(inspected)
                continue
            record = inspected.record
            content = bytes.fromhex(record.sha256)
            label, first = self._first.get(content, (None, None))
            if label not in (None, record.label):
                reason = f"same content as {first}, which has the other label"
                self.quarantine.append(
                    Unusable(corpus, record.id, reason + "; both are kept" * (not self.unique))
                )
            if not self.unique or first is None:
                stem, dot, suffix = record.id.rpartition(".")
                names = chain([record.id], (f"{stem}~{n}{dot}{suffix}" for n in count(2)))
                record.id = next(free for free in names if free not in self._ids)
                self._ids.add(record.id)
                self._first.setdefault(content, (record.label, record.id))
                yield inspected
            elif label == record.label:
                self.duplicates.append((record.sha256, first, record.id))


@dataclass
class Collected:
    """Results of the collection, as the stage's CSV files hold them."""

    quarantine: pd.DataFrame  # corpus, path, reason; in the order of the records
    duplicates: pd.DataFrame  # sha256, kept, dropped
    leakage: pd.DataFrame  # benchmark, path, train_path, kind, distance (see `leakage.Leakage`)
    sources: pd.DataFrame  # source, label, generator, n, of the training corpora
    benchmarks: dict[str, int]  # number of records
    flat: dict[str, int]  # by benchmark or "training": images without contrast, compared by bytes alone


def _others(others: list[Other] | None, section: str) -> Iterator[tuple[str, Stream]]:
    """Yield (name, records) of the corpora or benchmarks with a reader of the user's."""
    for other in others or ():
        read = plugins.load(other.reader, {}, f"collect.{section}.others[].reader")
        yield other.name, track(read(paths.resolve(other.path)), other.name)


def _training(
    params: Params, corpora: dict[str, amounts.Amount], videos: dict[str, Any]
) -> Iterator[tuple[str, Stream]]:
    """Yield (corpus, its records) for every training corpus that the profile names."""
    for corpus, (root, share, total) in corpora.items():
        drawn = partial(amounts.drawn, share=share, seed=params.seed)
        options = videos if corpus == "ffpp" else {}
        records = track(amounts.READERS[corpus](root, drawn=drawn, **options), corpus, total)
        yield corpus, chain(records, amounts.unread(corpus, root))
    yield from _others(params.collect.corpora.others, "corpora")


def _benchmarks(params: Params, collected: Path, videos: dict[str, Any]) -> Iterator[tuple[str, Stream]]:
    """Yield (benchmark, its records) for every one that the profile names."""
    settings, roots = params.collect, amounts.folders(params)
    for name in amounts.BENCHMARKS:
        if name not in roots:
            continue
        root, total = roots[name], None
        # The release, or a thinned FF++, holds only some of its test frames.
        if name == "ffpp" and (settings.corpora.fakeclue or "ffpp" in settings.at_most):
            records = ffpp.read(root, splits=("test",), **videos)
        elif name == "ffpp":
            frame = read_frame(collected, ["source", "split"])
            records = Records(collected).take(np.flatnonzero(frame.eq(["ff++", "test"]).all(axis=1)))
        elif name == "ddvqa":
            records = ddvqa.read(root, roots["ffpp"], **videos)
        else:
            records = amounts.READERS[name](root)
            total = amounts.count(name, root, settings.frames_per_video)
        yield name, chain(track(records, f"benchmark {name}", total), amounts.unread(name, root))
    yield from _others(settings.benchmarks.others, "benchmarks")


def _synthetic(
    params: Params,
    ground_truths: dict[str, GroundTruth],
    aerials: Aerials | None,
    values: cache.Cache,
    kept: Path,
) -> Iterator[tuple[str, Iterable[Record]]]:
    """Yield (corpus, records) of the synthesized images; add their ground truth to `ground_truths`."""
    settings, renderer = params.collect, params.collect.renderer

    def remember(pairs: Iterable[tuple[Record, GroundTruth | None]]) -> Iterator[Record]:
        for record, ground_truth in pairs:
            if ground_truth is not None:
                ground_truths[ground_truth.path] = ground_truth
            yield record

    root = amounts.folders(params).get("m6doc")
    pages = m6doc.pages(root) if root is not None and settings.synthetic_documents else ()
    pages = [page for page in pages if page.style is not None and len(page.layout) >= 3]
    documents = synthesize_documents(pages, settings.synthetic_documents, params.seed, renderer)
    yield "documents", remember(documents)
    yield "satellites", remember(synthesize_satellites(settings.synthetic_satellites, params.seed, renderer))
    if aerials is not None:
        options = {"measured": settings.ground_truth is not None, "values": values, "kept": kept}
        yield "satellites", remember(generate(aerials, settings.satellites, params.seed, **options))


def collect(params: Params, out: Path | None = None) -> Collected:
    """Run the stage; the same inputs give the same bytes.

    After a kill images are read again, but no video is decoded and no satellite image sampled twice, and the
    generators' training goes on. With `collect.corpora.fakeclue` the records are the released FakeClue's,
    with its texts, its split and every image that it lists.

    Written to `out` (`artifacts/collect`): `records/`, the training corpora and the synthesized images;
    `benchmarks/<name>/`, empty for one that is left out (`ffpp` repeats the records of FF++'s test split);
    `satellites/`, generators trained here; `ground_truth.jsonl`, empty if there is none; the tables of
    `Collected` as CSV. Raises `UserError` if a corpus is missing or not in its layout, or none is named.
    """
    amounts.need_folders(params)
    settings, models, corpora = params.collect, params.collect.satellites, amounts.planned(params)
    out = out or paths.artifacts("collect")
    out.mkdir(parents=True, exist_ok=True)
    aerials = None
    if models is not None:
        real = sum(corpora[key].drawn or 0 for key in ("cvusa", "vigor") if key in corpora)
        learned = round(real * models.learn_share)
        need_aerials(learned, real - learned, models, "about ")
        aerials = Aerials(paths.work() / "aerials.u8", models, params.seed)
    leakage = Leakage(settings.leakage_distance)
    # The release is taken as published, copies and all: its numbers are compared with other people's.
    training = Filter(unique=settings.corpora.fakeclue is None)
    ground_truths = read_ground_truth(paths.resolve(settings.ground_truth) if settings.ground_truth else None)
    with_ground_truth: set[str] = set()  # paths of collected images with a ground truth
    sizes: dict[str, int] = {}

    # The generators' weights stay: training them anew takes days at the paper's size.
    satellites = cache.Cache(paths.runs("satellites") / "cache.sqlite" if models is not None else None)
    with satellites, cache.work("collect") as values:
        crop = make_cropper(settings.face_crop)
        videos = {"frames_per_video": settings.frames_per_video, "crop": crop, "values": values}

        def remember(record: Record) -> None:
            if record.path in ground_truths:
                with_ground_truth.add(record.path)
                if ground_truths[record.path].label != record.label:
                    what = f"{settings.ground_truth}: {record.path} has another label in its corpus"
                    raise UserError(what, "correct it, or set collect.ground_truth: null")

        def trained() -> Iterator[Record]:
            synthetic = _synthetic(params, ground_truths, aerials, satellites, out / "satellites")
            for corpus, records in chain(_training(params, corpora, videos), synthetic):
                size = models.image_size if models is not None else None
                for record, hashed, aerial in training.kept(corpus, records, size):
                    if aerial is not None:
                        aerials.add(record, aerial)
                    leakage.trained(record, hashed)
                    remember(record)
                    yield record

        def tested(benchmark: str, records: Stream) -> Iterator[Record]:
            for record, hashed, _ in Filter(False, training.quarantine).kept(benchmark, records):
                leakage.tested(benchmark, record, hashed)
                remember(record)
                yield record

        total = write_records(trained(), out / "records")
        for name, records in _benchmarks(params, out / "records", videos):
            sizes[name] = write_records(tested(name, records), out / "benchmarks" / name)
        for name in set(amounts.BENCHMARKS) - sizes.keys():
            write_records((), out / "benchmarks" / name)
    if not total + sum(sizes.values()):
        cure = "name at least one corpus in collect.corpora or one benchmark in collect.benchmarks"
        raise UserError(f"profile {params.profile!r} collects no image", cure)
    kept = [ground_truths[path] for path in sorted(with_ground_truth)]
    write_ground_truth(kept, out / "ground_truth.jsonl")
    problems = pd.DataFrame(training.quarantine, columns=Unusable._fields)
    problems["reason"] = problems["reason"].str.split().str.join(" ")
    origins = read_frame(out / "records", ["source", "label", "generator"]).fillna({"generator": ""})
    results = Collected(
        quarantine=problems.drop_duplicates(ignore_index=True),
        duplicates=pd.DataFrame(training.duplicates, columns=["sha256", "kept", "dropped"]),
        leakage=leakage.frame(),
        sources=origins.value_counts(sort=False).sort_index().rename("n").reset_index(),
        benchmarks=sizes,
        flat=dict(leakage.flat),
    )
    for name in ("quarantine", "duplicates", "leakage", "sources"):
        write_csv(getattr(results, name), out / f"{name}.csv")
    return results

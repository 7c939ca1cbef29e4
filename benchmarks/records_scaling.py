"""Memory and time from 10,000 to a million records: `python benchmarks/records_scaling.py`; sizes may be named.

Generated records with tiny images, no two alike, go through what every image goes through: writing and
reading shards, the tables without images, the collection's filter and leakage check, the bookkeeping of
`categorize` (a stand-in answers for the classifier), the plan of `annotate` (categories, splits, choice) with
a walk through its tasks, the whole of `annotate` (three stand-ins answer at once, in two statements each that
are said of few other images; a stand-in embeds them), the same with a full journal whose last line a kill has
torn, the records on disk that training reads, the fit of a linear expert (pixels are its features), and a
benchmark in `evaluate` (stand-ins answer, in words and as a detector). Every step runs in a process of its
own.

Told are the most memory it ever held, imports included; the most of its own (files mapped into memory count
in the first alone); and the processor's time a record, as a ratio to the smallest size's too (seconds of the
wall say nothing on a busy machine). At the end of each size, `dvc status` on a throwaway repository with as
many shards as the records would be in at 400 kB an image.

A million records need 6 GB in the folder for temporary files; everything is deleted at the end.
"""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from fakevlm.data.records import Record, read_frame, read_records, write_records
from fakevlm.inference.protocol import Outcome, Request

SIZES = (10_000, 100_000, 1_000_000)
KILOBYTES = 400  # of a typical image of GenImage's
PROBED = 2_000  # records that training fetches at random


def peak() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def records(count: int) -> Iterator[Record]:
    """Records with images of 12×12 pixels of noise, no two alike, and ids as long as GenImage's."""
    rng = np.random.default_rng(0)
    for n in range(count):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(out, "BMP")
        path = f"genimage/fake/midjourney/{n:07d}_midjourney_{n}.bmp"
        split = "train" if n % 8 < 2 else None
        yield Record(path, out.getvalue(), n % 2, "genimage", path, generator="midjourney", split=split)


class Watch(threading.Thread):
    """Looks every 20 ms how much memory this process holds that is no file's (`RssAnon`); Linux only."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            status = Path("/proc/self/status").read_text()
            own = int(status.split("RssAnon:")[1].split()[0]) / 1024
            self.most = max(self.most, own)


class Guess:
    """Stands in for the classifier of `categorize`: categories drawn at random."""

    def probabilities(self, images: list[Image.Image]) -> np.ndarray:
        return np.random.default_rng(images[0].getpixel((0, 0))[0]).dirichlet(np.ones(4), len(images))


class Chatty:
    """Stands in for an annotator: of three things drawn by the image's hash it says two."""

    def __init__(self, number: int) -> None:
        self.model, self.revision, self.sampling = f"Chatty-{number}", "1", {"seed": 17}
        self._number = number

    async def annotate(self, request: Request) -> Outcome:
        from fakevlm.data.clues import KINDS, QUALITIES

        drawn = int(request.image_sha256[:12], 16)
        kinds = list((QUALITIES if request.prompt.label else KINDS).values())
        said = []
        for n in {0, 1, 2} - {self._number}:
            phrases = kinds[(drawn + 3 * n) % len(kinds)].phrases
            said.append(f"{phrases[drawn % len(phrases)].format(s='it')} in row {drawn % 9973}.")
        return Outcome("ok", "It seems that " + " Also, ".join(said))


def embed(texts: list[str], name: str) -> np.ndarray:
    """Stands in for the sentence encoder: the sums of fixed random vectors, one a word."""
    rows = np.zeros((len(texts), 384), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.split():
            row += word_vector(word)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@lru_cache(maxsize=20_000)
def word_vector(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384).astype(np.float32)


def write(count: int, folder: Path) -> int:
    return write_records(records(count), folder / "records")


def read(count: int, folder: Path) -> int:
    return sum(1 for _ in read_records(folder / "records"))


def frame(count: int, folder: Path) -> int:
    return len(read_frame(folder / "records"))


def collect(count: int, folder: Path) -> int:
    from fakevlm.collection.filter import Filter, inspect
    from fakevlm.collection.leakage import Leakage
    from fakevlm.prefetch import prefetch

    leakage, unique = Leakage(4), Filter()

    def passed():
        for item in prefetch(partial(inspect, corpus="genimage"), read_records(folder / "records")):
            if unique.accepts("genimage", item):
                leakage.trained(item.record, item.phash)
                yield item.record

    total = write_records(passed(), folder / "again")
    leakage.frame()
    return total


def categorize(count: int, folder: Path) -> int:
    from fakevlm.categorize import assign, eva
    from fakevlm.config.params import load_params

    eva.load = lambda name: Guess()
    assign.paths.runs = lambda *parts: folder.joinpath("runs", *parts)
    params = load_params("mini")
    params = params.model_copy(update={"categorize": params.categorize.model_copy(update={"model": "x"})})
    return len(assign.assign(params, folder / "records", None, folder / "categorize").categories)


def plan(count: int, folder: Path) -> int:
    from fakevlm.annotation.fakeclue import planned
    from fakevlm.config.params import load_params

    chosen, tasks = planned(load_params("mini"), folder, folder / "categorize")
    assert sum(1 for _ in tasks) == len(chosen) > 0.9 * count
    return count


def annotate(count: int, folder: Path) -> int:
    from fakevlm.annotation import aggregate, example, fakeclue
    from fakevlm.config.params import load_params

    aggregate.encode = embed
    chatty, out = [Chatty(n) for n in range(3)], folder / "annotate"
    made = fakeclue.build(
        load_params("mini"),
        collected=folder,
        categorized=folder / "categorize",
        out=out,
        journal=folder / "journal.jsonl",
        annotators=chatty,
    )
    assert example.pick(made, out).captions.keys() == {each.model for each in chatty}
    assert made.metrics["outcomes"] == {"ok": 3 * len(made.images)}
    assert len(made.images) > 0.9 * count
    assert 1 < made.metrics["points_per_image"] < 3, made.metrics
    return count


def resumed(count: int, folder: Path) -> int:
    journal = folder / "journal.jsonl"
    with journal.open("r+b") as file:
        file.truncate(size := journal.stat().st_size - 9)
    assert annotate(count, folder) == count
    assert size < journal.stat().st_size < size + 2_000  # asked again: one
    return count


def training(count: int, folder: Path) -> int:
    from fakevlm.data.shards import Records
    from fakevlm.training.data import draw

    held = Records(folder / "records")
    for n in np.random.default_rng(1).integers(count, size=PROBED):
        held[n].pil()
    assert sum(1 for _ in draw(held, PROBED, 1)) == PROBED
    return sum(1 for _ in held.without_images())


def experts(count: int, folder: Path) -> int:
    from fakevlm.config.params import load_params
    from fakevlm.data.shards import Records, take
    from fakevlm.evaluation.experts.base import Progress
    from fakevlm.evaluation.experts.linear import LinearExpert

    class Pixels(LinearExpert):
        title = "pixels"

        def features(self, images: list[Image.Image]) -> np.ndarray:
            return np.stack([np.asarray(image, np.float32).ravel() for image in images])

    held, rows = Records(folder / "records"), np.arange(count)
    train, val = take(held, rows[count // 10 :]), take(held, rows[: count // 10])
    expert = Pixels()
    log = expert.fit(train, val, load_params("mini"), 1, Progress())
    assert expert.linear.weight.shape == (12 * 12 * 3,)
    return count if log.chosen.sum() == 1 else 0


def asked(count: int, folder: Path) -> int:
    from fakevlm.config.params import load_params
    from fakevlm.evaluation import benchmarks
    from fakevlm.inference.generate import frame
    from fakevlm.inference.predict import Predictor, predict

    class Talker:
        prepare = staticmethod(list)

        def __call__(self, records: list) -> dict[str, np.ndarray]:
            n, texts = len(records), [f"This is a fake image. {record.sha256}" for record in records]
            words = {"text": np.array(texts, object), "verdict": np.full(n, "fake", object)}
            return words | {"p_fake": np.full(n, 0.5), "forced": np.zeros(n, bool)}

    benchmarks.folder = lambda name: folder / "records"
    found = benchmarks.load(load_params("mini"), "fakeclue")
    return len(benchmarks.table(found, frame(found, predict(Predictor(Talker, None, 32), found))))


def detected(count: int, folder: Path) -> int:
    from fakevlm.config.params import load_params
    from fakevlm.evaluation import benchmarks
    from fakevlm.evaluation.methods import detector

    benchmarks.folder = lambda name: folder / "records"
    found = benchmarks.sample(benchmarks.load(load_params("mini"), "fakeclue"), count - 1, 0)

    class Undecided:
        def predict(self, images: list) -> np.ndarray:
            return np.full(len(images), 0.5)

    answered = detector("detector", Undecided, ["undecided"], load_params("mini"))(found, None)
    return len(benchmarks.table(found, answered)) + 1


STEPS = {
    "write": write,
    "read": read,
    "table": frame,
    "filter, leakage": collect,
    "categorize": categorize,
    "annotate's plan": plan,
    "annotate": annotate,
    "annotate resumed": resumed,
    "training's data": training,
    "linear experts": experts,
    "words, P(fake)": asked,
    "a detector": detected,
}
IMPORTS = {
    "filter, leakage": "fakevlm.collection.collect",
    "categorize": "fakevlm.categorize.assign",
    "annotate's plan": "fakevlm.annotation.fakeclue",
    "annotate": "fakevlm.annotation.fakeclue",
    "annotate resumed": "fakevlm.annotation.fakeclue",
    "training's data": "fakevlm.training.data",
    "linear experts": "fakevlm.evaluation.experts.linear",
    "words, P(fake)": "fakevlm.inference.generate",
    "a detector": "fakevlm.evaluation.benchmarks",
}


def measured(name: str, count: int, folder: Path) -> dict[str, float]:
    """Time and memory of one step."""
    list(records(1))
    if name in IMPORTS:
        __import__(IMPORTS[name])
    watch = Watch()
    watch.start()
    start = time.process_time()
    assert STEPS[name](count, folder) == count
    taken = time.process_time() - start
    watch.over.set()
    return {"microseconds": taken / count * 1e6, "peak": peak(), "own": watch.most}


def dvc_status(count: int, folder: Path) -> tuple[int, float]:
    """(shards, the processor's seconds for `dvc status`) where `count` records would lie in shards."""
    shards = -(-count * KILOBYTES // (128 << 10))
    folder.mkdir()
    stage = "stages:\n  collect:\n    cmd: python make.py\n    outs: [records]\n"
    (folder / "dvc.yaml").write_text(stage)
    make = f"from pathlib import Path\nPath('records').mkdir()\nfor n in range({shards}):\n"
    (folder / "make.py").write_text(
        make + "    Path(f'records/part-{n:05d}.parquet').write_text(str(n) * 999)\n"
    )
    dvc = [sys.executable, "-m", "dvc"]
    for command in (["git", "init", "-q"], [*dvc, "init", "-q"], [*dvc, "repro", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = subprocess.run([*dvc, "status"], cwd=folder, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "up to date" in told, told
    return shards, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(sizes: list[int]) -> None:
    print(
        f"{'step':<16} {'records':>9} {'peak memory':>13} {'its own':>13} {'µs a record':>12} {'× smallest':>11}"
    )
    place = Path(tempfile.mkdtemp(prefix="records_scaling_"))
    os.environ |= {"HF_HUB_OFFLINE": "1", "FAKEVLM_ROOT": str(place)}
    shutil.copy(Path(__file__).resolve().parents[1] / "params.yaml", place)
    first: dict[str, float] = {}
    try:
        for count in sizes:  # one size after the other, so that the disk holds one
            folder = place / str(count)
            for name in STEPS:
                command = [sys.executable, __file__, name, str(count), str(folder)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                row = json.loads(done.stdout)
                ratio = row["microseconds"] / first.setdefault(name, row["microseconds"])
                print(
                    f"{name:<16} {count:>9,} {row['peak']:>10.0f} MB {row['own']:>10.0f} MB"
                    f" {row['microseconds']:>12.0f} {ratio:>11.2f}",
                    flush=True,
                )
            shutil.rmtree(folder)
            shutil.rmtree(place / "runs", ignore_errors=True)
            shards, seconds = dvc_status(count, place / "dvc")
            shutil.rmtree(place / "dvc")
            print(
                f"dvc status       {count:>9,} in {shards:,} shards: {seconds:.1f} s of processor time",
                flush=True,
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in STEPS:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))

"""Memory and time from 10,000 to a million records: `python benchmarks/records_scaling.py [SIZE …]`.

Generated records with tiny images, no two alike, go through every step that reads records. Stand-ins answer
for the models. Every step runs in a process of its own. The table shows the most memory that the process
held, imports included, and the processor's time a record, also as a ratio to the smallest size's. A million
records need 6 GB in the folder for temporary files; everything is deleted at the end.
"""

import importlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from fakevlm.cache import Cache
from fakevlm.config.params import load_params
from fakevlm.data.records import Record, read_frame, read_records, write_records
from fakevlm.data.shards import Records
from fakevlm.inference.ask import Outcome, Request

SIZES = (10_000, 100_000, 1_000_000)
FETCHED = 2_000  # records that training fetches at random


def records(count: int) -> Iterator[Record]:
    """Yield records with images of 12×12 pixels of noise, no two alike, and ids as long as GenImage's."""
    rng = np.random.default_rng(0)
    for n in range(count):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(out, "BMP")
        path = f"genimage/fake/midjourney/{n:07d}_midjourney_{n}.bmp"
        split = "train" if n % 8 < 2 else None
        yield Record(path, out.getvalue(), n % 2, "genimage", path, generator="midjourney", split=split)


class RandomClassifier:
    """Stands in for the classifier of `categorize`."""

    def probabilities(self, images: list[Image.Image]) -> np.ndarray:
        return np.random.default_rng(images[0].getpixel((0, 0))[0]).dirichlet(np.ones(4), len(images))


class RandomAnnotator:
    """Stands in for an annotator: of three clues drawn by the image's hash it names two."""

    requests = 0

    def __init__(self, number: int) -> None:
        self.model, self.revision, self.sampling = f"annotator-{number}", "1", {"seed": 17}
        self._number = number

    async def annotate(self, request: Request) -> Outcome:
        from fakevlm.data.clues import KINDS, QUALITIES

        RandomAnnotator.requests += 1
        drawn = int(request.image_sha256[:12], 16)
        kinds = list((QUALITIES if request.prompt.label else KINDS).values())
        statements = []
        for n in {0, 1, 2} - {self._number}:
            phrases = kinds[(drawn + 3 * n) % len(kinds)].phrases
            statements.append(f"{phrases[drawn % len(phrases)].format(s='it')} in row {drawn % 9973}.")
        return Outcome("ok", "It seems that " + " Also, ".join(statements))


@lru_cache(maxsize=20_000)
def word_vector(word: str) -> np.ndarray:
    """Return the fixed random vector of a word."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(384).astype(np.float32)


def embed(texts: list[str], name: str) -> np.ndarray:
    """Stand in for the sentence encoder: unit sums of the words' vectors."""
    rows = np.array([sum(map(word_vector, text.split())) for text in texts])
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def write(count: int, folder: Path) -> int:
    return write_records(records(count), folder / "records")


def read(count: int, folder: Path) -> int:
    return sum(1 for _ in read_records(folder / "records"))


def frame(count: int, folder: Path) -> int:
    return len(read_frame(folder / "records"))


def collect(count: int, folder: Path) -> int:
    from fakevlm.collection.collect import Filter
    from fakevlm.collection.leakage import Leakage

    leakage = Leakage(4)

    def accepted() -> Iterator[Record]:
        for record, phash, _ in Filter().kept("genimage", read_records(folder / "records")):
            leakage.trained(record, phash)
            yield record

    total = write_records(accepted(), folder / "again")
    leakage.frame()
    return total


def categorize(count: int, folder: Path) -> int:
    from fakevlm.categorize import assign, eva

    eva.load = lambda name: RandomClassifier()
    model, params = folder / "model", load_params("mini")
    model.mkdir()
    settings = params.categorize.model_copy(update={"model": str(model)})
    params = params.model_copy(update={"categorize": settings})
    return len(assign.assign(params, folder / "records", None, folder / "categorize").categories)


def plan(count: int, folder: Path) -> int:
    from fakevlm.annotation.fakeclue import planned

    chosen, tasks = planned(load_params("mini"), folder, folder / "categorize")
    assert sum(1 for _ in tasks) == len(chosen) > 0.9 * count
    return count


def annotate(count: int, folder: Path) -> int:
    from fakevlm.annotation import aggregate, dataset, fakeclue

    aggregate.encode = embed
    annotators, out = [RandomAnnotator(n) for n in range(3)], folder / "annotate"
    with Cache(folder / "answers.sqlite") as store:
        result = fakeclue.build(
            load_params("mini"),
            collected=folder,
            categorized=folder / "categorize",
            out=out,
            store=store,
            annotators=annotators,
        )
    assert dataset.pick(result, out)[1].keys() == {each.model for each in annotators}
    assert result.metrics["outcomes"] == {"ok": 3 * len(result.images)}
    assert len(result.images) > 0.9 * count
    assert 1 < result.metrics["points_per_image"] < 3, result.metrics
    return count


def annotate_again(count: int, folder: Path) -> int:
    annotate(count, folder)
    assert RandomAnnotator.requests == 0  # all answers are stored
    return count


def training(count: int, folder: Path) -> int:
    from fakevlm.training.data import draw

    stored = Records(folder / "records")
    for n in np.random.default_rng(1).integers(count, size=FETCHED):
        stored[n].pil()
    assert sum(1 for _ in draw(stored, FETCHED, 1)) == FETCHED
    return sum(1 for _ in stored.without_images())


def experts(count: int, folder: Path) -> int:
    from fakevlm.cache import Cache
    from fakevlm.evaluation.experts import LinearExpert

    class Pixels(LinearExpert):
        title = "pixels"

        def features(self, images: list[Image.Image]) -> np.ndarray:
            return np.stack([np.asarray(image, np.float32).ravel() for image in images])

    stored, rows = Records(folder / "records"), np.arange(count)
    train, val = stored.take(rows[count // 10 :]), stored.take(rows[: count // 10])
    log = Pixels(None).fit(train, val, load_params("mini"), Cache(None), "")
    return count if log.chosen.sum() == 1 else 0


def answers(count: int, folder: Path) -> int:
    from fakevlm.evaluation import benchmarks
    from fakevlm.inference.predict import Predictor, predict

    class Model:
        prepare = staticmethod(list)

        def __call__(self, records: list) -> dict[str, np.ndarray]:
            n, texts = len(records), [f"This is a fake image. {record.sha256}" for record in records]
            words = {"text": np.array(texts, object), "verdict": np.full(n, "fake", object)}
            return words | {"p_fake": np.full(n, 0.5), "forced": np.zeros(n, bool)}

    benchmarks.folder = lambda name: folder / "records"
    stored = benchmarks.load(load_params("mini"), "fakeclue")
    return len(benchmarks.table(stored, predict(Predictor(Model, None, 32), stored)))


def detector(count: int, folder: Path) -> int:
    from fakevlm.evaluation import benchmarks, detectors

    class Undecided:
        def predict(self, images: list) -> np.ndarray:
            return np.full(len(images), 0.5)

    benchmarks.folder = lambda name: folder / "records"
    sample = benchmarks.sample(benchmarks.load(load_params("mini"), "fakeclue"), count - 1, 0)
    scores = detectors.detector("detector", Undecided, ["undecided"], load_params("mini"))(sample, None)
    return len(benchmarks.table(sample, scores)) + 1


# Each step, and the module that it imports before its time is taken.
STEPS = {
    "write": (write, "fakevlm"),
    "read": (read, "fakevlm"),
    "table": (frame, "fakevlm"),
    "filter, leakage": (collect, "fakevlm.collection.collect"),
    "categorize": (categorize, "fakevlm.categorize.assign"),
    "annotate's plan": (plan, "fakevlm.annotation.fakeclue"),
    "annotate": (annotate, "fakevlm.annotation.fakeclue"),
    "annotate again": (annotate_again, "fakevlm.annotation.fakeclue"),
    "training's data": (training, "fakevlm.training.data"),
    "linear experts": (experts, "fakevlm.evaluation.experts"),
    "words, P(fake)": (answers, "fakevlm.inference.generate"),
    "a detector": (detector, "fakevlm.evaluation.benchmarks"),
}


def measure(name: str, count: int, folder: Path) -> dict[str, float]:
    """Return the microseconds a record and the peak memory in MB of one step."""
    step, module = STEPS[name]
    list(records(1))
    importlib.import_module(module)
    start = time.process_time()
    assert step(count, folder) == count
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"microseconds": seconds / count * 1e6, "peak": peak}


def main(sizes: list[int]) -> None:
    print(f"{'step':<16} {'records':>9} {'peak memory':>13} {'µs a record':>12} {'× smallest':>11}")
    place = Path(tempfile.mkdtemp(prefix="records_scaling_"))
    os.environ |= {"HF_HUB_OFFLINE": "1", "FAKEVLM_ROOT": str(place)}
    shutil.copy(Path(__file__).resolve().parents[1] / "params.yaml", place)
    first: dict[str, float] = {}
    try:
        for count in sizes:  # one size after the other, so that the disk holds one
            for name in STEPS:
                command = [sys.executable, __file__, name, str(count), str(place / str(count))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                row = json.loads(done.stdout.splitlines()[-1])
                ratio = row["microseconds"] / first.setdefault(name, row["microseconds"])
                figures = f"{row['peak']:>10.0f} MB {row['microseconds']:>12.0f} {ratio:>11.2f}"
                print(f"{name:<16} {count:>9,} {figures}", flush=True)
            shutil.rmtree(place / str(count))
            shutil.rmtree(place / "runs", ignore_errors=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in STEPS:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))

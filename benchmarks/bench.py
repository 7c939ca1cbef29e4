# ruff: noqa: E402
"""What this project's ways are worth on this machine: `make bench`, or `make bench ARGS="training data"`.

A row compares two ways to one result: ours, which is what the stages call, and a reference. Both are checked
for equal results, then run in turns, so that a busy machine slows both. The ratio is how many times as fast
ours is, the median of `PAIRS` pairs; the spread is the least and the most. Figures are CPU time of a process
with one thread, as stages have it; a star marks wall-clock time.

The authors' settings for training and evaluation are restated in benchmarks/gpu.py. Both ways run there on a
tiny LLaVA with LLaVA-1.5's numbers of tokens: 576 of an image and about 150 of text. In evaluation both have
weights of 16 bits, as on a GPU, if this processor multiplies in 16 bits.
"""

import argparse
import contextlib
import copy
import functools
import itertools
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "NO_PROXY": "127.0.0.1"}
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tests", "benchmarks")]

import numpy as np
from PIL import Image

from fakevlm.cache import Cache
from fakevlm.config.params import Cluster, Endpoint, load_params
from fakevlm.data.records import CATEGORIES, Record, decode, encode, read_records, write_records
from fakevlm.data.shards import Records, without_images
from fakevlm.inference.ask import Outcome, Request, ask_all
from fakevlm.inference.predict import Predictor, predict
from fakevlm.prefetch import THREADS, prefetch

PAIRS = 5
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "pyarrow", "pillow", "ray")
Row = tuple[str, ...]  # what, ours, reference, ratio, spread
Times = Sequence[float]


def row(what: str, ours: Times, reference: Times, unit: str = "ms", scale: float = 1e3) -> Row:
    """Return the row of seconds of pairs."""
    ratios = [other / mine for mine, other in zip(ours, reference, strict=True)]
    figures = (f"{scale * np.median(times):.3g} {unit}" for times in (ours, reference))
    return (what, *figures, f"{np.median(ratios):.2f}", f"{min(ratios):.2f}–{max(ratios):.2f}")


def compare(
    what: str, ours: Callable, reference: Callable, items: int, clock: Callable = time.process_time
) -> Row:
    """Run both ways in turns; return their row, a time for each of `items`. A number returned is the time."""

    def timed(way: Callable) -> float:
        start = clock()
        result = way()
        return (result if isinstance(result, float) else clock() - start) / items

    ours(), reference()  # warm up
    return row(what, *zip(*[(timed(ours), timed(reference)) for _ in range(PAIRS)], strict=True))


def noise(seed: int, side: int, size: int, form: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return encode(Image.fromarray(pixels).resize((size, size)), form)


def tiny(count: int, dtype: str = "float32") -> tuple[Any, ...]:
    """Return a small LLaVA in LLaVA-1.5's proportions, with its numbers of tokens, and `count` records."""
    import gpu
    import torch

    shape = gpu.Shape((64, 3, 2, 256), (192, 4, 6, 512), 336, 4000, 1024, (118, 34))
    return gpu, shape, gpu.model(shape, getattr(torch, dtype)), *gpu.build(shape, count)


def training() -> Iterator[Row]:
    gpu, shape, llava, processor, records = tiny(4)
    examples = gpu.Examples(records, gpu.Collator(processor, prompt="bare"), "explanation")
    first = {name: value.clone() for name, value in llava.state_dict().items()}
    authors = lambda steps: gpu.train_authors(llava, examples, 4, True, steps, shape.padded)  # noqa: E731
    for what, kept in ("computed twice", True), ("kept", False):
        losses, ours = [], functools.partial(gpu.train_ours, llava, examples, 4, kept)
        for way in ours, authors:
            llava.load_state_dict(first)
            losses.append(way(2).losses)
        np.testing.assert_allclose(*losses, rtol=1e-5)
        ways = [lambda way=way: way(1).seconds(1) for way in (ours, authors)]
        what = f"a sample, activations {what}; authors' recipe: padded to 1,024, computed twice"
        yield compare(what, *ways, 4)


def evaluation(what: str = "words and P(fake)", longest: int | None = None) -> Iterator[Row]:
    from fakevlm.model.llava import multiply_in_16_bits
    from fakevlm.model.weights import multiplies_16_bits

    narrow = multiplies_16_bits()  # weights of 16 bits for both, if this processor computes with them
    gpu, shape, llava, processor, records = tiny(16, "bfloat16" if narrow else "float32")
    gpu.recite(llava, processor)
    library, most = copy.deepcopy(llava), 2 * shape.answer[0]
    if narrow and llava.device.type == "cpu":
        multiply_in_16_bits(llava)  # as `load_for_inference` does
    answerer = gpu.ours(llava, processor, 16, longest or most, False, bool(longest))
    ours = functools.partial(predict, answerer, records)
    authors = lambda: gpu.answer_authors(library, processor, records, 16, most, shape.padded)  # noqa: E731
    for mine, text in zip(ours()["text"], authors(), strict=True):
        assert text.startswith(mine) if longest else text == mine
    yield compare(f"an image: {what}; authors' settings: words, batch 16, padded to 1,024", ours, authors, 16)


def detection() -> Iterator[Row]:
    longest = load_params("mini").robustness.max_new_tokens
    return evaluation(f"verdict and P(fake), at most {longest} tokens as in stage robustness", longest)


def data() -> Iterator[Row]:
    import av
    from rouge_score.rouge_scorer import RougeScorer

    from fakevlm.data.corpora.ffpp import frames, numbers
    from fakevlm.evaluation.explanations import rouge_l

    rng, oracle, wall = np.random.default_rng(0), RougeScorer(["rougeL"]), time.perf_counter
    pairs = list(itertools.pairwise(" ".join(f"w{n}" for n in rng.zipf(1.5, 60) % 500) for _ in range(200)))
    ours = lambda: [rouge_l(text, [reference]) for text, reference in pairs]  # noqa: E731
    theirs = lambda: [oracle.score(reference, text)["rougeL"].fmeasure for text, reference in pairs]  # noqa: E731
    np.testing.assert_allclose(ours(), theirs(), atol=1e-9)
    yield compare("ROUGE-L of two texts of 60 words; the package rouge-score", ours, theirs, len(pairs))

    def both(what: str, function: Callable, items: list) -> Row:
        ways = (lambda: list(prefetch(function, items, THREADS))), (lambda: list(map(function, items)))
        assert ways[0]() == ways[1]()
        return compare(f"{what} in {THREADS} threads; one after another *", *ways, len(items), wall)

    yield both("decode a JPEG of 640×640", decode, [noise(n, 40, 640) for n in range(64)])

    def cut(file: Path) -> list[bytes]:
        return [encode(Image.fromarray(pixels), "PNG") for _, pixels in frames(file, numbers(file, 8))]

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{n}.mp4") for n in range(4)]
        for n, file in enumerate(files):
            with av.open(str(file), "w") as container:
                stream = container.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = 640, 640, "yuv420p"
                still = np.asarray(decode(noise(n, 40, 640)))
                for k in range(60):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, k, 1), "rgb24")))
                container.mux(stream.encode(None))
        yield both("8 frames of a video of 640×640", cut, files)


class Device:
    """Stands in for a model on a GPU: images are really decoded and prepared, then a batch takes 0.8 s."""

    size, busy = 16, 0.8

    def __init__(self) -> None:
        from fakevlm.model.build import build_processor, build_tokenizer

        self.images = build_processor(build_tokenizer(["a"], 500), 336, 14).image_processor

    def prepare(self, records: list[Record]) -> Any:
        return self.images([record.pil() for record in records], return_tensors="pt")["pixel_values"]

    def __call__(self, pixels: Any) -> dict[str, np.ndarray]:
        time.sleep(self.busy)
        ended = np.full(len(pixels), time.perf_counter())  # one clock for all processes
        return {"p_fake": np.full(len(pixels), 0.5), "ended": ended}


def ray() -> Iterator[Row]:
    from fakevlm.inference import ray_cluster

    size, busy, turns = Device.size, Device.busy, 4  # batches of a pair
    records = [Record(str(n), noise(n, 400, 400), 1, "noise") for n in range(size * turns * (PAIRS + 1))]
    plan = [list(range(n, n + size)) for n in range(0, len(records), size)]
    numbers, cluster = list(range(len(plan))), Cluster(address=None, workers=1, gpus_per_worker=0)
    here, there = Predictor(Device, None, size), functools.partial(ray_cluster.run, Device, records, plan)
    for where, batches in (
        ("in this process", here.compute(records, plan, numbers)),
        ("by a worker of Ray", there(numbers, cluster)),
    ):
        times = sorted(columns["ended"][0] for _, columns in batches)[turns - 1 :: turns]
        ours, alone = (np.diff(times) / (turns * size)).tolist(), [busy / size] * PAIRS
        yield row(f"an image {where}; the model alone, {busy} s for {size} images *", ours, alone)


def startup() -> Iterator[Row]:
    notebook = (ROOT / "notebooks" / "06_evaluate.ipynb").read_text(encoding="utf-8")
    imports = re.findall(r'(?m)^ *"((?:from \S+ )?import [^"\\]+)', notebook)
    imports.append("from fakevlm.inference import generate")  # what a model that is asked imports
    bare = ["import torch", "from transformers import LlavaForConditionalGeneration, LlavaProcessor"]

    def start(lines: list[str]) -> float:
        used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # noqa: E731
        before, path = used(), {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, env=os.environ | path)
        return used() - before

    what = "imports of stage evaluate; torch and transformers' LLaVA alone"
    yield compare(what, lambda: start(imports), lambda: start(bare), 1)


def annotate() -> Iterator[Row]:
    """Three models behind servers that answer `capacity` requests at a time, each after `latency` seconds."""
    from fakevlm.annotation.prompts import label_prompt
    from fakevlm.inference.servers import Client
    from misbehaving import serving

    capacity, latency, turns = 32, 1.0, 2  # rounds of a pair

    times: dict[str, list[float]] = {"Qwen2-VL": [], "InternVL2": [], "DeepSeek-VL2": []}

    class Timed(Client):
        async def annotate(self, request: Request) -> Outcome:
            outcome = await super().annotate(request)
            assert outcome.status == "ok"
            times[self.model].append(time.perf_counter())
            return outcome

    image, prompt = noise(1, 192, 384), label_prompt("animal", 0)
    names = [str(n) for n in range(capacity * (turns * PAIRS + 2))]
    requests = [Request(name, name, image + name.encode(), prompt) for name in names]
    with contextlib.ExitStack() as stack:
        common = {"backend": "endpoint", "revision": "1", "max_tokens": 256, "temperature": 0.0}
        common |= {"concurrency": capacity * 3 // 2}
        asked = []
        for model in times:
            url = stack.enter_context(serving(None, latency, capacity, good=True))
            asked.append(Timed(Endpoint(**common, name=model, model=model, urls=[url]), seed=1))
        ask_all(requests, asked, stack.enter_context(Cache(None)))
    # The first and the last round are left out: the servers fill up and run empty.
    rounds = [np.diff(each[capacity - 1 :: turns * capacity])[:PAIRS] for each in times.values()]
    ours = (np.concatenate(rounds) / (turns * capacity)).tolist()
    what = f"an answer of three servers each, {capacity} at a time, {latency:g} s; the servers' own pace *"
    yield row(what, ours, [latency / capacity] * len(ours))


def robustness() -> Iterator[Row]:
    from fakevlm.evaluation import detectors, robustness
    from fakevlm.evaluation.experts import Frequency, UnivFD
    from miniworld.world import shoot

    params = load_params("mini")
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"bootstrap": 0})})
    shots = [shoot(name, np.random.default_rng(n), fake=n % 2 == 0).jpeg for n, name in enumerate(CATEGORIES)]
    records = [Record(f"{n}.jpg", s, n % 2, "drawn", category=CATEGORIES[n]) for n, s in enumerate(shots)]
    experts = {"UnivFD": UnivFD(str(ROOT / "embedded" / "base")), "Frequency": Frequency(96)}
    for expert in experts.values():
        width, values = expert.features([records[0].pil()]).shape[1], {"mean": 0, "scale": 1, "weight": 1e-3}
        expert.linear = {name: np.full(width, value, np.float32) for name, value in values.items()}
        expert.linear["bias"] = np.zeros(1, np.float32)
    asked = {name: detectors.detector(name, lambda e=e: e, [name], params) for name, e in experts.items()}
    changes = robustness.settings(params)
    each = [robustness.perturbed(record, changes, params.seed) for record in records]
    seen = [record for variants in zip(*each, strict=True) for record in variants]
    ours = lambda: robustness.study(params, records, asked)[0]["p_fake"].tolist()  # noqa: E731
    plain = lambda: [e.predict([record.pil()])[0] for e in experts.values() for record in seen]  # noqa: E731
    np.testing.assert_allclose(ours(), plain(), atol=1e-5)
    what = f"an image under {len(changes)} perturbations, two experts; one image and expert after another"
    yield compare(what, ours, plain, len(records))


def drawn(count: int) -> Iterator[Record]:
    """Yield records with images of 12×12 pixels of noise, no two alike, and ids as long as GenImage's."""
    for n in range(count):
        path, split = f"genimage/fake/midjourney/{n:07d}_midjourney_{n}.bmp", "train" if n % 8 < 2 else None
        yield Record(
            path, noise(n, 12, 12, "BMP"), n % 2, "genimage", path, generator="midjourney", split=split
        )


class RandomClassifier:
    def probabilities(self, images: list[Image.Image]) -> np.ndarray:
        return np.random.default_rng(images[0].getpixel((0, 0))[0]).dirichlet(np.ones(4), len(images))


class RandomAnnotator:
    """Of three clues drawn by the image's hash it names two."""

    def __init__(self, number: int) -> None:
        self.model, self.revision, self.sampling = f"annotator-{number}", "1", {"seed": 17}
        self._named = {0, 1, 2} - {number}

    async def annotate(self, request: Request) -> Outcome:
        from fakevlm.data.clues import KINDS, QUALITIES

        image = int(request.image_sha256[:12], 16)
        kinds = list((QUALITIES if request.prompt.label else KINDS).values())
        phrases = [kinds[(image + 3 * n) % len(kinds)].phrases for n in self._named]
        sentences = [f"{p[image % len(p)].format(s='it')} in row {image % 9973}." for p in phrases]
        return Outcome("ok", "It seems that " + " Also, ".join(sentences))


def embed(texts: list[str], _: str) -> np.ndarray:
    """Stand in for the sentence encoder: a text's own random direction."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(384) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def write(count: int, folder: Path) -> int:
    return write_records(drawn(count), folder / "records")


def collect(count: int, folder: Path) -> int:
    from fakevlm.collection.collect import Filter
    from fakevlm.collection.leakage import Leakage

    leakage = Leakage(4)

    kept = Filter().kept("genimage", read_records(folder / "records"))
    total = write_records((leakage.trained(r, phash) or r for r, phash, _ in kept), folder / "again")
    leakage.frame()
    return total


def categorize(count: int, folder: Path) -> int:
    from fakevlm.categorize import assign, eva

    eva.load, params, model = lambda name: RandomClassifier(), load_params("mini"), folder / "model"
    model.mkdir(exist_ok=True)
    settings = params.categorize.model_copy(update={"model": str(model)})
    params = params.model_copy(update={"categorize": settings})
    return len(assign.assign(params, folder / "records", None, folder / "categorize").categories)


def answer(count: int, folder: Path) -> int:
    from fakevlm.annotation import aggregate, annotate

    if not (folder / "categorize").exists():
        categorize(count, folder)
    aggregate.encode = embed
    (folder / "answers.sqlite").unlink(missing_ok=True)
    with Cache(folder / "answers.sqlite") as store:
        given = {"collected": folder, "categorized": folder / "categorize", "out": folder / "annotate"}
        given |= {"store": store, "annotators": [RandomAnnotator(n) for n in range(3)]}
        params = load_params("mini")
        settings = params.annotate.model_copy(update={"expected": None})
        fakeclue = annotate.build(params.model_copy(update={"annotate": settings}), **given)
    assert fakeclue.metrics["outcomes"] == {"ok": 3 * len(fakeclue.images)}
    return count if len(fakeclue.images) > 0.9 * count else 0


def learn(count: int, folder: Path) -> int:
    from fakevlm.training.data import random_subset

    stored = Records(folder / "records")
    fetched = [stored[n].pil() for n in np.random.default_rng(1).integers(count, size=count // 5)]
    assert len(list(random_subset(stored, count // 5, 1))) == len(fetched)
    return sum(1 for _ in without_images(stored))


def judge(count: int, folder: Path) -> int:
    from fakevlm.evaluation import benchmarks

    def model(records: list[Image.Image]) -> dict[str, np.ndarray]:
        words = {"text": "This is a fake image.", "verdict": "fake"}
        columns = {name: np.full(len(records), value, object) for name, value in words.items()}
        return columns | {"p_fake": np.full(len(records), 0.5), "forced": np.zeros(len(records), bool)}

    benchmarks.folder = lambda name: folder / "records"
    stored = benchmarks.load(load_params("mini"), "fakeclue")
    return len(predict(Predictor(lambda: model, None, 32), stored)["p_fake"])


STEPS = {"write": write, "filter, leakage": collect, "categorize": categorize, "ask, aggregate": answer}
STEPS |= {"training's data": learn, "predictions": judge}  # what reads records, with stand-ins for the models


def records(name: str, less: int, more: int) -> Iterator[Row]:
    """Yield a step's time for a record and peak memory, at a larger and a smaller number of records."""
    times, peaks, step = {less: [], more: []}, {}, STEPS[name]
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {"HF_HUB_OFFLINE": "1", "FAKEVLM_ROOT": place}
        shutil.copy(ROOT / "params.yaml", place)
        for turn, count in itertools.product(range(PAIRS + 1), times):
            folder = Path(place, str(count))
            if turn == 0:  # warm up
                write(count, folder)
                step(count, folder)
            shutil.rmtree(Path(place, "runs"), ignore_errors=True)  # what the step has computed already
            start = time.process_time()
            assert step(count, folder) == count
            times[count] += [(time.process_time() - start) / count] if turn else []
            peaks.setdefault(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    what, ours, reference, *ratio = row(name, times[more], times[less], "µs", 1e6)
    figures = f"{ours}, {peaks[more]} MB", f"{reference}, {peaks[less]} MB"
    yield (f"{what}: a record of {more:,} and peak memory; of {less:,}", *figures, *ratio)


PARTS = (training, evaluation, detection, data, annotate, ray, startup, robustness)
NAMES = {part.__name__: part for part in PARTS} | {"records": None}


def processor() -> str:
    """Return the processor's short name, fit for a file's name (`AMD-EPYC-7763`)."""
    cpus = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*: (.+)", cpus.read_text()) if cpus.exists() else None
    name = match[1] if match else platform.processor() or platform.machine()
    name = re.sub(r"\((R|TM|C)\)|@.*|\d+-Core|\b(CPU|Processor)\b", " ", name, flags=re.I)
    return "-".join(re.findall(r"[\w.]+", name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"{', '.join(NAMES)} (default: all); a number: of records")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="folder of the result file")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a part or step in its own process: rows to stdout
    options = parser.parse_args()
    size = max([int(part) for part in options.part if part.isdigit()], default=10_000)
    chosen = [part for part in options.part if not part.isdigit()] or list(NAMES)
    if options.one:
        steps = {name: functools.partial(records, name, size // 10, size) for name in STEPS}
        for cells in (NAMES | steps)[options.one]():
            print(json.dumps(cells), flush=True)
        return
    if unknown := set(chosen) - set(NAMES):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    from gpu import Table

    what = "bench" if len(chosen) == len(NAMES) else "-".join(chosen)
    file = options.out / f"{what}_{processor()}_{time.strftime('%Y-%m-%d')}.md"
    options.out.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    machine = f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    table = Table(
        file, "Ours against references", f"{machine} · Python {platform.python_version()}", PACKAGES
    )
    for part in chosen:
        table.head(part, "what, ours; the reference", "ours", "reference", "ratio", "spread")
        for one in STEPS if part == "records" else [part]:
            command = [sys.executable, __file__, "--one", one, str(size)]
            done = subprocess.run(command, capture_output=True, text=True)
            for line in re.findall(r'(?m)^\[".+', done.stdout):  # libraries print there too
                table.row(*json.loads(line))
            if done.returncode:
                table.row(one, f"failed: {done.stderr.strip().splitlines()[-1]}", *[""] * 3)


if __name__ == "__main__":
    main()

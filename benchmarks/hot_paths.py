"""What the design's choices are worth on this machine: `python benchmarks/hot_paths.py`, about two minutes.

Each row compares two ways to the same result within one run, in turns, so that a busy machine slows both; the
figure is a ratio, and that the results agree is checked before anything is timed.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import itertools

import av
import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer

from fakevlm import paths
from fakevlm.data.corpora.video import frames, numbers, png
from fakevlm.data.records import CATEGORIES, Record, read_records, write_records
from fakevlm.data.shards import Records
from fakevlm.evaluation.text import rouge_l
from fakevlm.inference.generate import Llava, frame
from fakevlm.inference.predict import Predictor
from fakevlm.inference.predict import predict as run
from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import load_model, load_processor
from fakevlm.prefetch import THREADS, prefetch
from miniworld.world import shoot

ROUNDS = 5


def predict(model, processor, images, *, batch_size: int, max_new_tokens: int, desc: str = "predict"):
    """The answers of a loaded model about records."""
    predictor = Predictor(lambda: Llava(model, processor, max_new_tokens), None, batch_size)
    return frame(images, run(predictor, images, desc=desc))


def seconds(*ways: Callable[[], object]) -> list[float]:
    """The median time of each way, run in turns."""
    times: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()  # warm up
    for _ in range(ROUNDS):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def records(count: int) -> list[Record]:
    """Drawn images of all categories, real and fake in turns."""
    made = []
    for n in range(count):
        shot = shoot(CATEGORIES[n % 7], np.random.default_rng([n, 7]), fake=n % 2 == 0)
        made.append(Record(f"{n}.jpg", shot.jpeg, n % 2, "drawn", str(n), CATEGORIES[n % 7]))
    return made


def rendering() -> tuple[str, float]:
    rng = np.random.default_rng(1)
    ours, one_hundredth = seconds(
        lambda: [shoot(CATEGORIES[n % 7], rng, fake=n % 2 == 0) for n in range(100)], lambda: time.sleep(1)
    )
    return (
        "100 images drawn, against the second that the design allows for them (one core)",
        one_hundredth / ours,
    )


def rouge(texts: list[str]) -> tuple[str, float]:
    pairs = list(itertools.pairwise(texts))
    oracle = RougeScorer(["rougeL"])
    for text, reference in pairs:
        assert abs(rouge_l(text, [reference]) - oracle.score(reference, text)["rougeL"].fmeasure) < 1e-9
    ours, theirs = seconds(
        lambda: [rouge_l(text, [reference]) for text, reference in pairs],
        lambda: [oracle.score(reference, text) for text, reference in pairs],
    )
    return "ROUGE-L by rapidfuzz, against the package rouge-score (equal values)", theirs / ours


def by_number(folder: Path) -> tuple[str, float]:
    """600 images of 300 kB in files, each read by its number in a shuffled order with nothing kept, or all in their order."""
    rng = np.random.default_rng(0)
    made = (Record(f"{n}.jpg", rng.bytes(300_000), n % 2, "noise", str(n)) for n in range(600))
    write_records(made, folder)
    order = rng.permutation(600)

    def shuffled() -> list[str]:
        found = Records(folder, in_memory=0)
        return [found[n].id for n in order]

    def streamed() -> list[str]:
        return [record.id for record in read_records(folder)]

    assert sorted(shuffled()) == sorted(streamed())
    single, stream = seconds(shuffled, streamed)
    rate = f"{600 / single:,.0f} a second against {600 / stream:,.0f}"
    return f"records of 300 kB by number, shuffled, against streamed ({rate}, one process)", stream / single


def videos(folder: Path) -> tuple[str, float]:
    """Frames of 8 videos of 200 frames and 640×480 pixels, as `collect` takes them from FaceForensics++."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 60, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    files = [folder / f"{n}.mp4" for n in range(8)]
    for n, file in enumerate(files):
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
            for k in range(200):
                frame = av.VideoFrame.from_ndarray(np.roll(pixels[(k // 25 + n) % 16], k, 1), "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    def decode(file: Path) -> list[bytes]:
        return [png(pixels) for _, pixels in frames(file, numbers(file, 32))]

    def read(threads: int) -> list:
        return list(prefetch(decode, files, threads))

    assert read(THREADS) == read(1)
    several, one = seconds(lambda: read(THREADS), lambda: read(1))
    return f"frames of videos by {THREADS} threads, against one at a time (equal bytes)", one / several


def batching(model, processor, images: list[Record]) -> tuple[str, float]:
    def asked(size: int):
        return predict(model, processor, images, batch_size=size, max_new_tokens=48, desc=f"batch {size}")

    assert asked(1).text.tolist() == asked(len(images)).text.tolist()
    together, single = seconds(lambda: asked(len(images)), lambda: asked(1))
    return (
        f"answers for {len(images)} images in one batch, against one by one (equal words)",
        single / together,
    )


def one_pass(model, processor, images: list[Record]) -> tuple[str, float]:
    """Words and P(fake) from one pass, against generating and then scoring the answer again for its probability."""

    def again() -> None:
        answered = predict(model, processor, images, batch_size=len(images), max_new_tokens=48)
        examples = [Example(r.pil(), r.question, text) for r, text in zip(images, answered.text, strict=True)]
        batch = Collator(processor)(examples)
        batch.pop("labels", None)
        with torch.inference_mode():
            model(**batch)

    once, twice = seconds(
        lambda: predict(model, processor, images, batch_size=len(images), max_new_tokens=48), again
    )
    return "words and P(fake) from one pass, against a second pass for P(fake)", twice / once


def training_step(model, processor, images: list[Record], texts: list[str]) -> tuple[str, float]:
    examples = [Example(r.pil(), r.question, text) for r, text in zip(images, texts, strict=True)]
    batch = Collator(processor)(examples)

    def step(precision: str) -> None:
        torch.set_float32_matmul_precision(precision)
        model(**batch).loss.backward()
        model.zero_grad()

    half, full = seconds(lambda: step("medium"), lambda: step("highest"))
    torch.set_float32_matmul_precision("highest")
    return (
        "a training step with products of 16-bit factors, against 32-bit (CPUs with AVX512-BF16 or AMX)",
        full / half,
    )


def main() -> None:
    torch.manual_seed(0)
    base = paths.root() / "embedded" / "base"
    model, processor = load_model(base), load_processor(base)
    images = records(32)
    texts = predict(
        model, processor, records(96), batch_size=96, max_new_tokens=48, desc="texts"
    ).text.tolist()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            rendering(),
            rouge(texts),
            by_number(Path(folder) / "records"),
            videos(Path(folder)),
            batching(model, processor, images),
            one_pass(model, processor, images),
            training_step(model, processor, images, texts[: len(images)]),
        ]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {ROUNDS}")
    print("| what, against what | times as fast |\n|---|---|")
    for what, ratio in rows:
        print(f"| {what} | {ratio:.2g} |")


if __name__ == "__main__":
    main()

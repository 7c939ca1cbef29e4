"""What the design's choices are worth here: `python benchmarks/hot_paths.py [ROUNDS]`, about two minutes.

Each row compares two ways to the same result, in turns, so that a busy machine slows both. The figure is the
ratio of their median times. That the results agree is checked before anything is timed.
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import av
import numpy as np
import torch
from PIL import Image
from rouge_score.rouge_scorer import RougeScorer

from fakevlm import paths
from fakevlm.data.corpora.ffpp import frames, numbers
from fakevlm.data.records import CATEGORIES, Record, encode
from fakevlm.evaluation.explanations import rouge_l
from fakevlm.inference.generate import Llava
from fakevlm.inference.predict import Predictor, predict
from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import load_model, load_processor
from fakevlm.prefetch import THREADS, prefetch
from miniworld.world import shoot

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """Return the median time of `theirs` over that of `ours`, run in turns."""
    ours(), theirs()  # warm up
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        theirs()
        times.append((middle - start, time.perf_counter() - middle))
    mine, other = map(statistics.median, zip(*times, strict=True))
    return other / mine


def records(count: int) -> list[Record]:
    """Draw images of all categories, real and fake in turns."""
    shots = [shoot(CATEGORIES[n % 7], np.random.default_rng([n, 7]), fake=n % 2 == 0) for n in range(count)]
    return [
        Record(f"{n}.jpg", shot.jpeg, n % 2, "drawn", str(n), CATEGORIES[n % 7])
        for n, shot in enumerate(shots)
    ]


def rouge(texts: list[str]) -> float:
    """ROUGE-L by rapidfuzz, against the package rouge-score (equal values)"""
    pairs, oracle = list(itertools.pairwise(texts)), RougeScorer(["rougeL"])
    for text, reference in pairs:
        assert abs(rouge_l(text, [reference]) - oracle.score(reference, text)["rougeL"].fmeasure) < 1e-9
    return ratio(
        lambda: [rouge_l(text, [reference]) for text, reference in pairs],
        lambda: [oracle.score(reference, text) for text, reference in pairs],
    )


def videos(folder: Path) -> float:
    """Frames of 8 videos (640×480) by threads, against one at a time (equal bytes)"""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 60, 80, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    files = [folder / f"{n}.mp4" for n in range(8)]
    for n, file in enumerate(files):
        with av.open(str(file), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
            for k in range(200):
                image = av.VideoFrame.from_ndarray(np.roll(pixels[(k // 25 + n) % 16], k, 1), "rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))

    def decode(file: Path) -> list[bytes]:
        return [encode(Image.fromarray(pixels), "PNG") for _, pixels in frames(file, numbers(file, 32))]

    def read(threads: int) -> list[list[bytes]]:
        return list(prefetch(decode, files, threads))

    assert read(THREADS) == read(1)
    return ratio(lambda: read(THREADS), lambda: read(1))


def answers(model, processor, images: list[Record], batch_size: int) -> list[str]:
    """Return the answers of a loaded model about records."""
    predictor = Predictor(lambda: Llava(model, processor, 48), None, batch_size)
    return predict(predictor, images)["text"].tolist()


def batching(model, processor, images: list[Record]) -> float:
    """Answers in one batch, against one by one (equal words)"""
    together = answers(model, processor, images, len(images))
    assert together == answers(model, processor, images, 1)
    return ratio(
        lambda: answers(model, processor, images, len(images)), lambda: answers(model, processor, images, 1)
    )


def one_pass(model, processor, images: list[Record]) -> float:
    """Words and P(fake) from one pass, against a second pass for P(fake)"""

    def twice() -> None:
        texts = answers(model, processor, images, len(images))
        examples = [Example(r.pil(), r.question, text) for r, text in zip(images, texts, strict=True)]
        batch = Collator(processor)(examples)
        batch.pop("labels", None)
        with torch.inference_mode():
            model(**batch)

    return ratio(lambda: answers(model, processor, images, len(images)), twice)


def training_step(model, processor, images: list[Record]) -> float:
    """A training step with products of 16-bit factors, against 32-bit (CPUs with AVX512-BF16 or AMX)"""
    texts = answers(model, processor, images, len(images))
    batch = Collator(processor)(
        [Example(r.pil(), r.question, text) for r, text in zip(images, texts, strict=True)]
    )

    def step(precision: str) -> None:
        torch.set_float32_matmul_precision(precision)
        model(**batch).loss.backward()
        model.zero_grad()

    return ratio(lambda: step("medium"), lambda: step("highest"))


def main() -> None:
    torch.manual_seed(0)
    base = paths.root() / "embedded" / "base"
    loaded = load_model(base), load_processor(base)
    images = records(32)
    texts = answers(*loaded, records(96), 96).text.tolist()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {ROUNDS}")
    print("| what, against what | times as fast |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for measure, arguments in (
            (rouge, (texts,)),
            (videos, (Path(folder),)),
            (batching, (*loaded, images)),
            (one_pass, (*loaded, images)),
            (training_step, (*loaded, images)),
        ):
            print(f"| {measure.__doc__} | {measure(*arguments):.2g} |", flush=True)


if __name__ == "__main__":
    main()

"""How much of its servers' throughput the client uses: `python benchmarks/annotate_saturation.py`.

Three models are asked at once, each behind a server process that answers `--capacity` requests at a time,
each after `--latency` seconds, so capacity / latency requests a second at most. The client keeps half as many
again under way. The table shows the client's rate over the server's: in the whole run, and without the first
and last two rounds (steady). Where the CPU of a request times the servers' rate nears one core, the core is
measured.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fakevlm.annotation.prompts import label_prompt
from fakevlm.cache import Cache
from fakevlm.config.params import Endpoint
from fakevlm.inference.ask import Outcome, Request, ask_all
from fakevlm.inference.servers import Client

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from misbehaving import serving

MODELS = ("Qwen2-VL", "InternVL2", "DeepSeek-VL2")


class Timed(Client):
    """A client that notes the time of its first request and of each answer."""

    def __init__(self, spec: Endpoint, seed: int) -> None:
        super().__init__(spec, seed)
        self.times: list[float] = []
        self.failed = 0

    async def annotate(self, request: Request) -> Outcome:
        if not self.times:
            self.times.append(time.perf_counter())
        outcome = await super().annotate(request)
        self.times.append(time.perf_counter())
        self.failed += outcome.status != "ok"
        return outcome

    def rates(self, capacity: int) -> tuple[float, float]:
        """Return answers a second: of the whole run, and without its first and last two rounds."""
        answered, early = len(self.times) - 1, 2 * capacity
        late = answered - 2 * capacity
        return (
            answered / (self.times[-1] - self.times[0]),
            (late - early) / (self.times[late] - self.times[early]),
        )


def images(n: int, size: int) -> list[Request]:
    """Return requests about n different JPEGs of about 100 kB at the default size."""
    noise = np.random.default_rng(1).integers(0, 255, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((2 * size, 2 * size)).save(out, "JPEG", quality=85)
    prompt = label_prompt("animal", 0)
    return [Request(f"{i}.jpg", f"{i}.jpg", out.getvalue() + str(i).encode(), prompt) for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capacity", type=int, default=32)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument(
        "--rounds", type=int, default=30, help="requests a model, in multiples of the capacity"
    )
    parser.add_argument("--size", type=int, default=192, help="half the images' side in pixels")
    options = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"

    requests = images(options.capacity * options.rounds, options.size)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        serve = [
            stack.enter_context(serving(None, options.latency, options.capacity, good=True)) for _ in MODELS
        ]
        annotators = [
            Timed(
                Endpoint(
                    name=name,
                    backend="endpoint",
                    model=name,
                    revision="1",
                    urls=[url],
                    max_tokens=256,
                    temperature=0.0,
                    concurrency=options.capacity * 3 // 2,
                ),
                seed=1,
            )
            for name, url in zip(MODELS, serve, strict=True)
        ]
        warm = Request(
            "warm", "warm", requests[0].image + b"warm", requests[0].prompt
        )  # imports are no throughput
        with Cache(folder / "warm.sqlite") as store:
            ask_all([warm], annotators, store, concurrency=1)
        for annotator in annotators:
            annotator.times.clear()
        cpu = time.process_time()
        with Cache(folder / "answers.sqlite") as store:
            ask_all(requests, annotators, store)
        cpu = time.process_time() - cpu

    saturated = options.capacity / options.latency
    rates = [annotator.rates(options.capacity) for annotator in annotators]
    whole, steady = (
        ", ".join(f"{rate / saturated:.3f}" for rate in each) for each in zip(*rates, strict=True)
    )
    failed = sum(annotator.failed for annotator in annotators)
    total = len(MODELS) * len(requests)
    print(
        "| capacity, latency | image | requests | failed | servers, 1/s | steady | whole run "
        "| CPU a request |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {options.capacity}, {options.latency:g} s | {len(requests[0].image) / 1e3:.0f} kB | {total} "
        f"| {failed} | {len(MODELS)} × {saturated:g} | {steady} | {whole} | {1e3 * cpu / total:.2f} ms |"
    )


if __name__ == "__main__":
    main()

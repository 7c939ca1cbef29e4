"""What the leakage check costs: `python benchmarks/leakage_scaling.py`, about two minutes.

Hashes are generated: spread as those of photographs are (coefficients that fall with frequency), and clumped (half of them within a
few bits of 100 prototypes, as pages of one layout or frames of one video are), which fills the index's buckets unevenly. 30,000
tests are looked up among 10,000, 100,000 and a million, each in a process of its own for the memory. Compared with all pairs, on 300 of
the tests, in the same process: the figures are ratios, and the results must agree. Seconds are the processor's, so that a busy machine
tells nearly the same.
"""

import io
import json
import resource
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from fakevlm.collection.perceptual import nearest, phash
from fakevlm.data.records import CATEGORIES
from miniworld.world import shoot

SIZES, TESTS, DISTANCE, COMPARED = (10_000, 100_000, 1_000_000), 30_000, 4, 300


def peak() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spread(rng: np.random.Generator, n: int) -> np.ndarray:
    """Hashes of n images whose frequencies fall off as 1/f."""
    across = np.arange(8)
    scale = 1 / (1 + np.hypot(across[:, None], across)).ravel()
    found = []
    for start in range(0, n, 1000):
        low = rng.normal(size=(min(1000, n - start), 64)) * scale
        low[:, 0] = 10  # the mean: brighter than no contrast
        bits = low > np.median(low, axis=1, keepdims=True)
        found.append(np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64))
    return np.concatenate(found)


def clumped(rng: np.random.Generator, n: int) -> np.ndarray:
    """As `spread`, but every second hash is one of 100 prototypes with six bits flipped."""
    hashes, prototypes = spread(rng, n), spread(np.random.default_rng(1), 100)
    near = prototypes[rng.integers(100, size=len(hashes[::2]))]
    for _ in range(6):
        near = near ^ (np.uint64(1) << rng.integers(64, size=len(near), dtype=np.uint64))
    hashes[::2] = near
    return hashes


def all_pairs(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `nearest` finds, by comparing each with each."""
    which, bits = [], []
    for one in asked:
        apart = np.bitwise_count(known ^ one)
        first = int(apart.argmin())
        near = apart[first] <= DISTANCE
        which.append(first if near else -1)
        bits.append(int(apart[first]) if near else -1)
    return np.array(which), np.array(bits)


def one(kind: str, size: int) -> dict[str, float]:
    """Times and memory of one look-up; run in a process of its own."""
    rng = np.random.default_rng(size)
    make = {"spread": spread, "clumped": clumped}[kind]
    known, asked = make(rng, size), make(rng, TESTS)
    copies = rng.integers(size, size=1000)  # so that something is found
    asked[-1000:] = known[copies] ^ (np.uint64(1) << rng.integers(64, size=1000, dtype=np.uint64))
    before = peak()
    start = time.process_time()
    which, bits = nearest(known, asked, DISTANCE)
    taken, memory = time.process_time() - start, peak() - before
    some = rng.choice(TESTS, COMPARED, replace=False)
    start = time.process_time()
    expected = all_pairs(known, asked[some])
    pairs = (time.process_time() - start) * TESTS / COMPARED
    assert np.array_equal(which[some], expected[0])
    assert np.array_equal(bits[some], expected[1])
    return {"seconds": taken, "memory": memory, "all_pairs": pairs, "found": int((which >= 0).sum())}


def hashing() -> None:
    """What a hash adds to the decoding that `collect` does anyway."""
    for side, count in ((96, 700), (512, 70)):
        files = []
        for n in range(count):
            shot = shoot(CATEGORIES[n % 7], np.random.default_rng([n, 7]), fake=False)
            out = io.BytesIO()
            Image.fromarray(shot.pixels).resize((side, side)).save(out, format="JPEG", quality=90)
            files.append(out.getvalue())
        start = time.process_time()
        images = [Image.open(io.BytesIO(file)) for file in files]
        for image in images:
            image.load()
        middle = time.process_time()
        for image in images:
            phash(image)
        end = time.process_time()
        decode, added = ((t * 1000 / count) for t in (middle - start, end - middle))
        print(
            f"hashing, {side}×{side} JPEG: {added:.2f} s added per 1,000 images, {added / decode:.2f} × their decoding"
        )


def main() -> None:
    hashing()
    print(f"\n{TESTS:,} tests, distance {DISTANCE}")
    print("hashes    kind      seconds  × per 10 × hashes  memory above the hashes   all pairs take   found")
    for kind in ("spread", "clumped"):
        last = None
        for size in SIZES:
            command = [sys.executable, __file__, kind, str(size)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            growth = f"{row['seconds'] / last:.1f}" if last else "-"
            last = row["seconds"]
            print(
                f"{size:>9,} {kind:<8} {row['seconds']:>8.2f} {growth:>18} {row['memory']:>20.0f} MB"
                f" {row['all_pairs'] / row['seconds']:>13.0f} × {row['found']:>8,}"
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]))))
    else:
        main()

"""Does `collect` need more memory for more images? `python benchmarks/collect_memory.py`, a few minutes; sizes may be named.

Shards of 10,000 and of 100,000 records with tiny, generated, all different images. Every step runs in a process of its own, whose
peak memory above that of the imports is told; and the processor's time a record, as a ratio to the smaller number's.

Writing and reading are to stay flat: a shard, a batch. The sieve and the leakage check remember every image by its hashes and its id, so
they grow by some bytes an image, which is told too.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fakevlm.corpora.collect import Sieve
from fakevlm.corpora.files import Quarantine
from fakevlm.corpora.leakage import Leakage
from fakevlm.records import Record, read_records, write_records

SIZES = (10_000, 100_000)
STEPS = ("write", "read", "sieve", "sieve + leakage")


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
        yield Record(path, out.getvalue(), n % 2, "genimage", path, generator="midjourney")


def step(name: str, count: int, folder: Path) -> int:
    """Runs one step; returns how many records came out."""
    if name == "write":
        return write_records(records(count), folder)
    if name == "read":
        return sum(1 for _ in read_records(folder))
    leakage = Leakage(4)
    look = leakage.trained if name == "sieve + leakage" else None
    passed = sum(1 for _ in Sieve(Quarantine()).through("genimage", read_records(folder), look))
    leakage.frame()
    return passed


def measured(name: str, count: int, folder: Path) -> dict[str, float]:
    """Time and memory of one step."""
    list(records(1))
    before, start = peak(), time.process_time()
    came = step(name, count, folder)
    taken = time.process_time() - start
    assert came == count
    return {"microseconds": taken / count * 1e6, "memory": peak() - before}


def main(sizes: list[int]) -> None:
    print(
        "step               records   peak memory    × the smaller's   bytes a record more   µs a record   ×"
    )
    with tempfile.TemporaryDirectory() as place:
        for name in STEPS:
            first = None
            for count in sizes:
                command = [sys.executable, __file__, name, str(count), str(Path(place) / str(count))]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                first = first or {**row, "count": count}
                more = count - first["count"]
                grown = f"{(row['memory'] - first['memory']) * 2**20 / more:.0f}" if more else "-"
                print(
                    f"{name:<16} {count:>9,} {row['memory']:>10.0f} MB {row['memory'] / first['memory']:>18.2f}"
                    f" {grown:>21} {row['microseconds']:>13.0f} {row['microseconds'] / first['microseconds']:>5.2f}"
                )


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in STEPS:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))

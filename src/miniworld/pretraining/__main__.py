"""`python -m miniworld.pretraining --out embedded/base`: makes the miniature's base model (about two hours of two cores)."""

import argparse
from pathlib import Path

import torch

from fakevlm import paths
from miniworld.pretraining.recipe import Recipe
from miniworld.pretraining.train import pretrain

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=paths.root() / "embedded" / "base")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--start", type=Path, help="a finished base, to go on from with the recipe's last round alone"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision(
        "medium"
    )  # products of 16-bit factors, for CPUs with AMX; without it 32 bit may be faster (benchmarks/hot_paths.py)
    pretrain(options.out, Recipe(), options.threads, options.start)

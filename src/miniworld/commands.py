"""Subcommands that the miniature adds to `fakevlm` (entry points `fakevlm.commands` in pyproject.toml)."""

from pathlib import Path
from typing import Annotated

import typer


def world(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("embedded"),
    seed: Annotated[int, typer.Option(help="Seed of all drawings.")] = 17,
    scale: Annotated[float, typer.Option(help="Factor on all numbers of images.")] = 1.0,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Draw the miniature's raw corpora anew, in the layouts of the real ones."""
    from miniworld.export import amounts, export

    weights = export(out, seed, amounts(scale), workers)
    for name, weight in {**weights, "together": sum(weights.values())}.items():
        print(f"{name:12s} {weight / 1e6:7.2f} MB")


def base(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("embedded/base"),
    threads: Annotated[int, typer.Option(help="Threads; other numbers round differently.")] = 2,
    start: Annotated[
        Path | None,
        typer.Option(help="A finished base, to continue from with the recipe's last round alone."),
    ] = None,
) -> None:
    """Pretrain the miniature's base model anew. Takes about two hours on two cores."""
    import torch

    from fakevlm.paths import resolve
    from miniworld.pretraining.train import RECIPE, pretrain

    torch.set_num_threads(threads)
    # Products of 16-bit factors: faster on CPUs with AMX, slower on others (benchmarks/hot_paths.py).
    torch.set_float32_matmul_precision("medium")
    pretrain(resolve(out), RECIPE, threads, start)

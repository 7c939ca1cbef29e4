"""Subcommands that the miniature adds to `fakevlm` (entry points `fakevlm.commands` in pyproject.toml)."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
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


def weights(out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("embedded")) -> None:
    """Train the miniature's small EVA-02 and its satellite generators anew. Takes minutes on two cores."""
    from fakevlm.categorize.assign import assign
    from fakevlm.collection.collect import collect
    from fakevlm.config.params import Params, load_params
    from fakevlm.paths import resolve, runs

    values = load_params("mini").model_dump()
    values["categorize"]["model"] = values["collect"]["satellites"]["weights"] = None  # the stages train them
    params = Params(**values)
    with TemporaryDirectory(dir=runs()) as folder:
        work = Path(folder)
        collect(params, work)
        assign(params, work / "records", work / "ground_truth.jsonl", work / "categorize")
        for source, name in ((work / "categorize/model", "eva02"), (work / "satellites", "satellites")):
            cards = shutil.ignore_patterns("*.md")  # those that are there stay
            shutil.copytree(source, resolve(out) / name, dirs_exist_ok=True, ignore=cards)


def base(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("embedded/base"),
    threads: Annotated[int, typer.Option(help="Threads; other numbers round differently.")] = 2,
    start: Annotated[Path | None, typer.Option(help="A finished base: run only the last round.")] = None,
) -> None:
    """Pretrain the miniature's base model anew. Takes about two hours on two cores."""
    import torch

    from fakevlm.paths import resolve
    from miniworld.pretraining.train import RECIPE, pretrain

    torch.set_num_threads(threads)
    # Products of 16-bit factors: faster on CPUs with AMX, slower on others.
    torch.set_float32_matmul_precision("medium")
    pretrain(resolve(out), RECIPE, threads, start)

"""Where things lie. Every path is absolute, so notebooks work from any folder."""

import os
from pathlib import Path

from fakevlm.errors import UserError

INSTALLED = Path(__file__).resolve().parents[2]  # the checkout that this package is installed from (editable)


def root() -> Path:
    """The repository's root: `$FAKEVLM_ROOT`, or the checkout one stands in, or else the installed one.

    So git worktrees and DVC's temporary workspaces read and write their own files.
    """
    named, here = os.environ.get("FAKEVLM_ROOT"), Path.cwd()
    checkouts = (folder for folder in (here, *here.parents) if (folder / "src/fakevlm/paths.py").is_file())
    path = Path(named).resolve() if named else next(checkouts, INSTALLED)
    if not (path / "params.yaml").is_file():
        cure = "install the checkout in place (`make setup`) or set FAKEVLM_ROOT to the repository's folder"
        raise UserError(f"no params.yaml in {path}", cure)
    return path


def resolve(path: str | Path) -> Path:
    """A path from params.yaml: relative ones are taken from the repository's root."""
    path = Path(os.path.expanduser(path))  # Path.expanduser raises where there is no such user
    return path if path.is_absolute() else root() / path


def artifacts(*parts: str) -> Path:
    """What stages make (DVC outputs), one folder a stage."""
    return root().joinpath("artifacts", *parts)


def made_by(stage: str, *parts: str) -> Path:
    """Return the path of what a stage makes (`finetune@head`, in `artifacts/finetune/head/`).

    Raises `UserError` if it is not there.
    """
    path = artifacts(*stage.split("@"), *parts)
    if not path.exists():
        what = f"{path.relative_to(root())}, which stage {stage} makes, is not there"
        raise UserError(what, f"run it first: `dvc repro {stage}`")
    return path


def runs(*parts: str) -> Path:
    """Resumable work in progress (checkpoints, caches). Never an output; DVC never deletes it."""
    path = root().joinpath("runs", *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def work() -> Path:
    """Return the running stage's folder for work in progress, removed once the stage has succeeded.

    Outside of a stage (in Jupyter, say) it is a folder that nobody removes.
    """
    return runs("work", *os.environ.get("FAKEVLM_STAGE", "no stage").split("/"))


def figures(*parts: str) -> Path:
    """The paper's figures and tables, kept in git."""
    return root().joinpath("figures", *parts)

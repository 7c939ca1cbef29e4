"""One process of a training: `python -m fakevlm.training --profile paper --objective explanation`, started by a launcher.

The notebook starts it through `fakevlm.training.launch`, a Slurm job by itself (`examples/finetune.sbatch`). It trains and
leaves a complete checkpoint in `runs/finetune/`; the notebook exports it. Without a launcher it trains alone.

Exit codes: 0 done · 1 failed · 2 something the user can cure.
"""

import argparse
import json
import os
import sys
import threading
import traceback
from pathlib import Path

from fakevlm.errors import UserError

DONE, USER_ERROR, ABANDONED = 0, 2, 3


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fakevlm.training", description="One process of a training."
    )
    parser.add_argument("--profile", help="section of params.yaml (default: the one it names)")
    parser.add_argument("--objective", default="explanation", help="explanation, label or head")
    parser.add_argument("--data", type=Path, help="folder with the shards of train and val")
    parser.add_argument("--work", type=Path, help="where runs keep their checkpoints")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: finetune.epochs)")
    parser.add_argument("--root", help="the repository's root (default: that of the installed checkout)")
    parser.add_argument("--error", type=Path, help="file to tell a failure in")
    parser.add_argument(
        "--watch", action="store_true", help="end when stdin ends: whoever started this is gone"
    )
    return parser.parse_args(argv)


def _watch() -> None:
    """Ends this process once stdin ends. A notebook that is killed cannot tell its ranks; they would train on."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held while the interpreter ends
            pass
        os._exit(ABANDONED)

    threading.Thread(target=wait, daemon=True).start()


def _train(arguments: argparse.Namespace) -> None:
    from fakevlm.config.params import load_params
    from fakevlm.training import ranks

    params = load_params(arguments.profile)  # a typo stops here, before torch is loaded

    from fakevlm.training.launch import opened

    if ranks.launched():
        ranks.join()
    opened(params, arguments.objective, arguments.data, arguments.work, arguments.steps).train()
    ranks.wait()
    ranks.leave()


def _tell(file: Path | None, error: dict[str, str]) -> None:
    """Leaves a failure where `launch` looks for it; of several ranks' the first one stays, which the others follow from."""
    if file is not None and not file.exists():
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(error), encoding="utf-8")
        part.replace(file)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _arguments(argv)
    if arguments.root:
        os.environ["FAKEVLM_ROOT"] = arguments.root
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if arguments.watch:
        _watch()
    try:
        _train(arguments)
    except UserError as error:
        print(f"finetune {arguments.objective}: {error}", file=sys.stderr, flush=True)
        _tell(arguments.error, {"what": error.what, "cure": error.cure})
        return USER_ERROR
    except Exception:
        _tell(arguments.error, {"traceback": traceback.format_exc()})
        raise
    return DONE


if __name__ == "__main__":
    sys.exit(main())

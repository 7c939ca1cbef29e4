"""One process of a training: `torchrun --nproc-per-node 8 -m fakevlm.training --objective explanation`.

`fakevlm.training.ranks` or a Slurm job (`examples/finetune.sbatch`) starts it. It leaves a complete
checkpoint in `runs/work/`, which the notebook exports. Exit codes: 0 done, 1 failed, 2 the user's mistake.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from fakevlm.config.params import load_params
from fakevlm.errors import GO_ON, UserError, refused


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser("python -m fakevlm.training", description="One process of a training.")
    parser.add_argument("--profile", help="section of params.yaml (default: the one it names)")
    parser.add_argument("--objective", default="explanation", help="explanation, label or head")
    parser.add_argument("--data", type=Path, help="folder with the shards of train and val")
    parser.add_argument("--work", type=Path, help="folder for the checkpoints")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: finetune.epochs)")
    return parser.parse_args(argv)


@record  # torchrun then shows the traceback of the rank that failed first
def main(argv: list[str] | None = None) -> int:
    """Train; return the exit code."""
    arguments = parse(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        params = load_params(arguments.profile)  # a typo stops here, before the model is loaded

        from fakevlm.training import ranks
        from fakevlm.training.finetune import Run

        if "WORLD_SIZE" in os.environ:
            ranks.connect()
        run = Run(params, arguments.objective, arguments.data, arguments.work, arguments.steps)
        try:
            run.train()
        except UserError as error:
            (run.folder / ranks.ERROR).write_text(json.dumps([error.what, error.cure]), encoding="utf-8")
            raise
        except Exception as error:
            if reason := refused(str(error), run.folder):
                raise UserError(f"{run.folder}: {reason} ({error})", GO_ON) from error
            raise
    except UserError as error:
        print(f"finetune {arguments.objective}: {error}", file=sys.stderr, flush=True)
        return 2
    ranks.disconnect()
    return 0


if __name__ == "__main__":
    from fakevlm.training import ranks

    ranks.leave(main())

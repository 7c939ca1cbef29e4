"""Compare lmms-eval's answers about FakeClue with this project's answers of the same model.

python integrations/lmms_eval/compare.py LOGS/…_samples_fakeclue.jsonl     (from lmms-eval's --log_samples)
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from fakevlm import paths


def compare(samples: Path, predictions: pd.DataFrame) -> dict[str, int]:
    """Return how many images there are, are on one side only, have the same answer, have the same verdict.

    Args:
        samples: lmms-eval's log, a JSON object a line.
        predictions: ours of one method: id, text, verdict.
    """
    lines = samples.read_text(encoding="utf-8").splitlines()
    theirs = {row["id"]: row for row in (json.loads(line)["fakeclue_acc"] for line in lines)}
    ours = predictions.set_index("id")
    both = [key for key in ours.index if key in theirs]
    return {
        "images": len(ours),
        "only here or there": len(ours) + len(theirs) - 2 * len(both),
        "same answer": sum(theirs[key]["text"].strip() == ours.text[key].strip() for key in both),
        "same verdict": sum(theirs[key]["verdict"] == ours.verdict[key] for key in both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path, help="…_samples_fakeclue.jsonl")
    parser.add_argument("--method", default="FakeVLM", help="whose answers of stage evaluate")
    arguments = parser.parse_args()
    predictions = pd.read_parquet(paths.artifacts("evaluate", "fakeclue", "predictions.parquet"))
    counts = compare(arguments.samples, predictions[predictions.method == arguments.method])
    print("\n".join(f"{name}: {count}" for name, count in counts.items()))
    sys.exit(counts["same answer"] != counts["images"] or counts["only here or there"] > 0)


if __name__ == "__main__":
    main()

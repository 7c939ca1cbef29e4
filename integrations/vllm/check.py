"""Compare the answers of FakeVLM behind vLLM about FakeClue's test images with this project's own.

vllm serve artifacts/finetune/explanation/model --served-model-name fakevlm --port 8001     (other ports too)
python integrations/vllm/check.py http://127.0.0.1:8001/v1 http://127.0.0.1:8002/v1
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fakevlm import paths
from fakevlm.cache import Cache
from fakevlm.config.params import Params, Servers, load_params
from fakevlm.data.records import Record
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks
from fakevlm.evaluation.benchmarks import FAKEVLM, tuned
from fakevlm.inference.served import Served


def compare(theirs: pd.DataFrame, ours: pd.DataFrame) -> dict[str, float]:
    """Return how many images have the same answer and verdict, and the largest difference of P(fake).

    Args:
        theirs: the servers' answers: id, text, verdict, p_fake.
        ours: those of one process about at least the same images.
    """
    ours = ours.set_index("id").loc[theirs["id"]]
    theirs = theirs.set_index("id")
    return {
        "images": len(theirs),
        "same answer": int((theirs["text"] == ours["text"]).sum()),
        "same verdict": int((theirs["verdict"] == ours["verdict"]).sum()),
        "largest difference of P(fake)": float((theirs["p_fake"] - ours["p_fake"]).abs().max()),
    }


def answered() -> pd.DataFrame:
    """Return FakeVLM's answers about FakeClue from stage `evaluate`."""
    file = paths.artifacts("evaluate", "fakeclue", "predictions.parquet")
    if not file.is_file():
        raise UserError(f"no answers to compare with: no {file}", "dvc repro evaluate@fakeclue")
    ours = pd.read_parquet(file)
    return ours[ours["method"] == FAKEVLM]


def ask(params: Params, servers: Servers, folder: str | Path, records: Sequence[Record]) -> pd.DataFrame:
    """Return the servers' answers about records, asked as in stage `evaluate`."""
    served = Served(servers, FAKEVLM, folder, params.evaluate.max_new_tokens)
    answers = served.predict(records, Cache(None))  # a new cache: these servers' own answers
    return columns_of(records, ["id"]).assign(**answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="+", help="addresses, each with its /v1")
    parser.add_argument("--served-model-name", default="fakevlm", help="as the servers call it")
    parser.add_argument("--images", type=int, help="the first so many; all by default")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--profile")
    arguments = parser.parse_args()
    try:
        params = load_params(arguments.profile)
        servers = Servers(
            urls=arguments.urls,
            model=arguments.served_model_name,
            concurrency=arguments.concurrency,
            top_logprobs=20,
        )
        ours = answered()
        records = Records(benchmarks.folder("fakeclue"))
        rows = np.flatnonzero(columns_of(records, ["id"])["id"].isin(ours["id"]))[: arguments.images]
        counts = compare(ask(params, servers, tuned(params), records.take(rows)), ours)
    except UserError as error:
        sys.exit(str(error))
    print("\n".join(f"{name}: {count:g}" for name, count in counts.items()))
    sys.exit(counts["same verdict"] < counts["images"])


if __name__ == "__main__":
    main()

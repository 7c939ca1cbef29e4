"""Clue quality of the aggregate by `annotate.aggregator.similarity`, after annotate: `fakevlm threshold`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fakevlm.annotation.aggregate import Candidates, EmbeddingAggregator
from fakevlm.annotation.quality import AGGREGATE, clue_quality, kinds_row
from fakevlm.config.params import Embedding, Params
from fakevlm.data.clues import kinds_named
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.data.records import FAKE, read_frame
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome

GRID = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.70)


def sweep(
    params: Params, annotated: Path, file: Path, grid: Sequence[float] = GRID, images: int = 600
) -> pd.DataFrame:
    """Return similarity, precision, recall, f1 and n of the aggregate's clues, on fakes of the train split.

    `annotated` is the stage's folder, `file` is `collect/ground_truth.jsonl`; at most `images` fakes,
    drawn with the run's seed. Raises `UserError` without ground truth, or if the aggregator has no threshold.
    """
    spec = params.annotate.aggregator
    if not isinstance(spec, Embedding):
        what = f"profile {params.profile}: the aggregator {spec.backend} has no threshold"
        raise UserError(what, "tune a profile whose aggregator is embedding")
    train = read_frame(annotated / "fakeclue" / "train", ["id", "label", "category"])
    ground_truths = read_ground_truth(file)
    fakes = train[(train["label"] == FAKE) & train["id"].isin(ground_truths)].sort_values("id")
    if fakes.empty:
        raise UserError(f"{file} has none of the training images", "tune the threshold on the miniature")
    order = np.random.default_rng([params.seed, 7]).permutation(len(fakes))[:images]
    fakes = fakes.iloc[np.sort(order)]
    written = pd.read_parquet(annotated / "candidates.parquet", filters=[("id", "in", fakes["id"])])
    captions: dict[str, dict[str, str]] = {}
    for row in written.itertuples():
        if caption := Outcome(row.outcome, row.text).caption.strip():
            captions.setdefault(row.id, {})[row.annotator] = caption
    candidates = [Candidates(row.id, row.category, FAKE, captions[row.id]) for row in fakes.itertuples()]
    true = np.array([kinds_row(ground_truths[key].kinds) for key in fakes["id"]])
    tables = []
    for similarity in grid:
        changed = spec.model_copy(update={"similarity": similarity})
        aggregates = EmbeddingAggregator(changed, params.annotate.min_annotators).aggregate(candidates)
        named = np.array([[kinds_row(kinds_named(aggregate.text))] for aggregate in aggregates])
        quality = clue_quality([AGGREGATE], named, true, fakes["label"].to_numpy())
        tables.append(quality.assign(similarity=similarity))
    return pd.concat(tables, ignore_index=True)[["similarity", "precision", "recall", "f1", "n"]]

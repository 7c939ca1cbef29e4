"""Clue quality of the aggregate by `annotate.aggregator.similarity`, on training images: `fakevlm threshold`.

Run it after `dvc repro annotate`, in a profile with ground truth.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fakevlm.annotation.aggregate import Candidates, EmbeddingAggregator
from fakevlm.annotation.dataset import captions_of
from fakevlm.annotation.quality import AGGREGATE, ClueQuality, named_kinds
from fakevlm.config.params import Embedding, Params
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.data.records import FAKE, read_frame
from fakevlm.errors import UserError
from fakevlm.inference.protocol import Outcome

GRID = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.70)


def sweep(
    params: Params, annotated: Path, truth: Path, grid: Sequence[float] = GRID, images: int = 600
) -> pd.DataFrame:
    """Return precision, recall and F1 of the aggregate's clues by threshold, on fakes of the train split.

    Args:
        params: the profile; `annotate.aggregator.similarity` is replaced by each value of `grid`.
        annotated: folder of the stage `annotate`.
        truth: `collect/truth.jsonl`.
        grid: thresholds to try.
        images: at most so many fakes, drawn with the run's seed.

    Returns:
        Columns similarity, precision, recall, f1, n.

    Raises:
        UserError: the training images have no ground truth, or the profile's aggregator has no threshold.
    """
    spec = params.annotate.aggregator
    if not isinstance(spec, Embedding):
        raise UserError(
            f"profile {params.profile}: the aggregator {spec.backend} has no threshold",
            "tune a profile whose aggregator is embedding",
        )
    train = read_frame(annotated / "fakeclue" / "train", ["id", "label", "category"])
    ground_truth = read_ground_truth(truth)
    fakes = train[(train["label"] == FAKE) & train["id"].isin(ground_truth)].sort_values("id")
    if fakes.empty:
        raise UserError(f"{truth} has none of the training images", "tune the threshold on the miniature")
    order = np.random.default_rng([params.seed, 7]).permutation(len(fakes))[:images]
    fakes = fakes.iloc[np.sort(order)]
    captions: dict[str, dict[str, str]] = {}
    for row in captions_of(annotated / "candidates.parquet", fakes["id"]).itertuples():
        if caption := Outcome(row.outcome, row.text).caption.strip():
            captions.setdefault(row.id, {})[row.annotator] = caption
    candidates = [Candidates(row.id, row.category, FAKE, captions[row.id]) for row in fakes.itertuples()]
    rows = []
    for similarity in grid:
        aggregator = EmbeddingAggregator(
            spec.encoder, similarity, params.annotate.min_annotators, spec.critical_similarity
        )
        quality = ClueQuality([AGGREGATE])
        for annotation in aggregator.aggregate(candidates):
            quality.add(ground_truth[annotation.id], named_kinds({AGGREGATE: annotation.text}))
        scores = quality.table().iloc[0][["precision", "recall", "f1", "n"]]
        rows.append({"similarity": similarity, **scores.to_dict()})
    return pd.DataFrame(rows)

"""Scores from a CSV: how a method enters the tables whose code or weights cannot run here.

Columns: `id`, a record's id or its image's path, and either `p_fake` (0–1, fake from the entry's `threshold`
or from one half on) or `score` (any number, higher for fake; fake from the entry's `threshold` on). One file
may serve several benchmarks; every image of a benchmark must have its row.
"""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from fakevlm import paths
from fakevlm.config.params import PublishedExpert
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError


def _read(spec: PublishedExpert) -> tuple[dict[str, float], bool]:
    """Return values by id, and whether they are probabilities."""
    path = paths.resolve(spec.scores)
    where = f"expert {spec.name}: {path}"
    try:
        frame = pd.read_csv(path, dtype={"id": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{where} is no readable CSV: {error}", "see evaluate.experts[].scores") from error
    columns = [column for column in ("p_fake", "score") if column in frame]
    if "id" not in frame or len(columns) != 1:
        raise UserError(
            f"{where} has the columns {', '.join(frame.columns)}", "give it `id` and one of `p_fake`, `score`"
        )
    probability = columns == ["p_fake"]
    values = pd.to_numeric(frame[columns[0]], errors="coerce")
    usable = np.isfinite(values) & frame["id"].notna() & (values.between(0, 1) | (not probability))
    if not usable.all():
        line = int(np.flatnonzero(~usable)[0]) + 2  # the head is line 1
        raise UserError(
            f"{where}, line {line}: no id, or {columns[0]} is no number" + " from 0 to 1" * probability,
            f"{int((~usable).sum())} such lines: correct them, or leave the images out of all methods",
        )
    if twice := frame["id"][frame["id"].duplicated()].tolist():
        raise UserError(f"{where} names {twice[0]!r} twice", "keep one row an image")
    if not probability and spec.threshold is None:
        raise UserError(
            f"{where} has scores without a threshold",
            "say in evaluate.experts[].threshold from which score on an image is fake",
        )
    return dict(zip(frame["id"], values.astype(float), strict=True)), probability


def read_scores(spec: PublishedExpert, records: Sequence[Record]) -> pd.DataFrame:
    """Return the answers about n records that an entry's CSV holds.

    Args:
        spec: an entry of `evaluate.experts` with `scores`.
        records: looked up by id, then by image path. Rows about other images are counted on stderr.

    Returns:
        n rows in the order of `records`: id, text (null), p_fake, verdict, forced (False). A `score` s
        becomes p_fake = ½ + d / (2 + 2|d|) with d = s − threshold: in the same order, ½ at the threshold, but
        no probability.

    Raises:
        UserError: the file does not fit, or some record has no row.
    """
    values, probability = _read(spec)
    ids = columns_of(records, ["id"])["id"]
    images = ids.str.split("#").str[0]
    keys = [key if key in values else path for key, path in zip(ids, images, strict=True)]
    missing = sorted(set(keys) - values.keys())
    unknown = len(values.keys() - set(keys))
    if missing:
        raise UserError(
            f"expert {spec.name}: {spec.scores} lacks {len(missing)} of {images.nunique()} images, the first "
            f"{missing[0]!r}; {unknown} of its {len(values)} rows are about no image of this benchmark",
            "ids are records' ids or image paths; if it is for some benchmarks only, list those in "
            "evaluate.experts[].benchmarks",
        )
    if unknown:
        print(f"{spec.name}: {unknown} rows of {spec.scores} are about other images", file=sys.stderr)
    scores = np.array([values[key] for key in keys], float)
    distance = scores - (0.5 if spec.threshold is None else spec.threshold)
    return pd.DataFrame(
        {
            "id": ids,
            "text": None,
            "p_fake": scores if probability else 0.5 + distance / (2 + 2 * np.abs(distance)),
            "verdict": np.where(distance >= 0, "fake", "real"),
            "forced": False,
        }
    )

"""Scores that a detector gave elsewhere, from a CSV: how a method enters the tables whose code or weights cannot run here.

Columns: `id`, a record's id or its image's path, and either `p_fake` (0–1, fake from `threshold` on, which is one half if the entry
names none) or `score` (any number, the higher the more likely fake; fake from the entry's `threshold` on). One file may serve
several benchmarks; every image of a benchmark must have its row.
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


def _read(spec: PublishedExpert) -> tuple[pd.Series, str]:
    """Values by id, and the name of their column."""
    path = paths.resolve(spec.scores)
    try:
        frame = pd.read_csv(path, dtype={"id": str})
    except (OSError, ValueError) as error:
        raise UserError(
            f"expert {spec.name}: {path} is no readable CSV: {error}", "see evaluate.experts[].scores"
        ) from error
    named = [column for column in ("p_fake", "score") if column in frame]
    if "id" not in frame or len(named) != 1:
        raise UserError(
            f"expert {spec.name}: {path} has the columns {', '.join(frame.columns)}",
            "give it `id` and one of `p_fake`, `score`",
        )
    (column,) = named
    values = pd.to_numeric(frame[column], errors="coerce")
    usable = np.isfinite(values) & frame["id"].notna()
    if column == "p_fake":
        usable &= values.between(0, 1)
    if not usable.all():
        line = int(np.flatnonzero(~usable)[0]) + 2  # the head is line 1
        raise UserError(
            f"expert {spec.name}: {path}, line {line}: no id, or {column} is no number"
            + (" from 0 to 1" if column == "p_fake" else ""),
            f"{int((~usable).sum())} such lines: correct them, or leave the images out of all methods",
        )
    if twice := frame["id"][frame["id"].duplicated()].tolist():
        raise UserError(f"expert {spec.name}: {path} names {twice[0]!r} twice", "keep one row an image")
    if column == "score" and spec.threshold is None:
        raise UserError(
            f"expert {spec.name}: {path} has scores, whose scale nobody knows",
            "say in evaluate.experts[].threshold from which score on an image is fake",
        )
    return pd.Series(values.to_numpy(float), index=frame["id"]), column


def read_scores(spec: PublishedExpert, records: Sequence[Record]) -> pd.DataFrame:
    """The answers about n records that an entry's CSV holds.

    Args:
        spec: an entry of `evaluate.experts` with `scores`.
        records: each is looked up by its id, then by its image's path. Rows of the CSV about other images are counted on stderr.

    Returns:
        n rows in the order of `records`: id, text (null), p_fake, verdict, forced (False). A `score` s becomes
        p_fake = ½ + d / (2 + 2|d|) with d = s − threshold: in the same order, ½ at the threshold, but no probability.

    Raises:
        UserError: the file does not fit, or some record has no row.
    """
    values, column = _read(spec)
    known = values.to_dict()
    ids = columns_of(records, ["id"])["id"]
    images = ids.str.split("#").str[0]
    keys = [key if key in known else path for key, path in zip(ids, images, strict=True)]
    missing = sorted({key for key in keys if key not in known})
    unknown = len(known.keys() - set(keys))
    if missing:
        raise UserError(
            f"expert {spec.name}: {spec.scores} lacks {len(missing)} of {images.nunique()} images, the first "
            f"{missing[0]!r}; {unknown} of its {len(known)} rows are about no image of this benchmark",
            "ids are records' ids or image paths; if it is for some benchmarks only, list those in evaluate.experts[].benchmarks",
        )
    if unknown:
        print(f"{spec.name}: {unknown} rows of {spec.scores} are about other images", file=sys.stderr)
    found = np.array([known[key] for key in keys], float)
    threshold = 0.5 if spec.threshold is None else spec.threshold
    gap = found - threshold
    return pd.DataFrame(
        {
            "id": ids,
            "text": None,
            "p_fake": found if column == "p_fake" else 0.5 + gap / (2 + 2 * np.abs(gap)),
            "verdict": np.where(gap >= 0, "fake", "real"),
            "forced": False,
        }
    )

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


def _read(spec: PublishedExpert) -> pd.Series:
    """Return values by id; their name is the column's."""
    path = paths.resolve(spec.scores)
    where = f"expert {spec.name}: {path}"
    try:
        frame = pd.read_csv(path, dtype={"id": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{where} is no readable CSV: {error}", "see evaluate.experts[].scores") from error
    columns = [column for column in ("p_fake", "score") if column in frame]
    if "id" not in frame or len(columns) != 1:
        cure = "give it `id` and one of `p_fake`, `score`"
        raise UserError(f"{where} has the columns {', '.join(frame.columns)}", cure)
    values = pd.to_numeric(frame[columns[0]], errors="coerce").astype(float)
    probability = values.name == "p_fake"
    bad = ~np.isfinite(values) | frame["id"].isna() | (~values.between(0, 1) & probability)
    if bad.any():
        number = "number from 0 to 1" if probability else "number"
        what = f"{where}, line {bad.argmax() + 2}: no id, or {values.name} is no {number}"  # the head is 1
        cure = f"{bad.sum()} such lines: correct them, or leave the images out of all methods"
        raise UserError(what, cure)
    if twice := frame["id"][frame["id"].duplicated()].tolist():
        raise UserError(f"{where} names {twice[0]!r} twice", "keep one row an image")
    if not probability and spec.threshold is None:
        cure = "say in evaluate.experts[].threshold from which score on an image is fake"
        raise UserError(f"{where} has scores without a threshold", cure)
    return values.set_axis(frame["id"])


def read_scores(spec: PublishedExpert, records: Sequence[Record]) -> pd.DataFrame:
    """Return the answers about n records that an entry's CSV holds: text, p_fake, verdict, forced in n rows.

    Records are looked up by id, then by image path; rows about other images are counted on stderr. A `score`
    s becomes p_fake = ½ + d / (2 + 2|d|) with d = s − threshold: in the same order, ½ at the threshold, but
    no probability. Raises a UserError where the file does not fit, or some record has no row.
    """
    values, ids = _read(spec), columns_of(records, ["id"])["id"]
    images = ids.str.split("#").str[0]
    keys = ids.where(ids.isin(values.index), images)
    missing = sorted(set(keys) - set(values.index))
    others = len(set(values.index) - set(keys))
    if missing:
        raise UserError(
            f"expert {spec.name}: {spec.scores} lacks {len(missing)} of {images.nunique()} images, the first "
            f"{missing[0]!r}; {others} of its {len(values)} rows are about no image of this benchmark",
            "ids are records' ids or image paths; if it is for some benchmarks only, list those in "
            "evaluate.experts[].benchmarks",
        )
    if others:
        print(f"{spec.name}: {others} rows of {spec.scores} are about other images", file=sys.stderr)
    scores = values[keys].to_numpy()
    distance = scores - (0.5 if spec.threshold is None else spec.threshold)
    p_fake = scores if values.name == "p_fake" else 0.5 + distance / (2 + 2 * np.abs(distance))
    verdict = np.where(distance >= 0, "fake", "real")
    return pd.DataFrame({"text": None, "p_fake": p_fake, "verdict": verdict, "forced": False})

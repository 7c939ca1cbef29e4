"""Choose and split the images of FakeClue (paper sections 3.1: a random split; 3.2: fake to real 1:1).

Two things differ from the release on purpose. Images are split by group (a video with its
manipulations), where the release has frames of one video in train and in test. And the 1:1 of section
3.2 holds within each category and split; the release is 65:35 (`balance: false` keeps all).
"""

import zlib

import numpy as np
import pandas as pd

from fakevlm.errors import UserError

SPLITS = ("train", "val", "test")


def _rng(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("|".join(map(str, names)).encode())])


def assign_splits(records: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int) -> pd.Series:
    """Return every record's split, `train`, `val` or `test`; a group stays whole.

    `records` have columns id, label, category, group, split (None if there is none yet). Given splits are
    kept, others drawn within category and label. The fractions are shares of all records, those with a given
    split included. Raises `UserError` if a group has two given splits.
    """
    by_group = records.sort_values("id").groupby("group")
    groups = by_group.agg(
        size=("id", "size"),
        category=("category", "first"),
        low=("label", "min"),
        high=("label", "max"),
        split=("split", "first"),
        splits=("split", "nunique"),
    )
    if len(torn := groups.index[groups["splits"] > 1]):
        splits = sorted(records["split"][records["group"] == torn[0]].dropna().unique())
        what = f"group {torn[0]} is in the corpus's splits {', '.join(splits)} at once"
        raise UserError(what, "check the corpus's split files")
    groups["split"] = groups["split"].astype(object)
    for (category, low, high), group in groups.groupby(["category", "low", "high"]):
        rng = _rng(seed, "split", category, sorted({int(low), int(high)}))
        total = group["size"].sum()
        free = group.index[group["split"].isna()]
        order = free[rng.permutation(len(free))]
        test = test_fraction - group["size"][group["split"] == "test"].sum() / total
        val = val_fraction - group["size"][group["split"] == "val"].sum() / total
        # The share of records before a group decides its split: this works for groups of any size.
        sizes = group["size"][order].to_numpy()
        before = (sizes.cumsum() - sizes) / total
        drawn = np.where(before < test - 1e-9, 2, np.where(before < max(test, 0) + val - 1e-9, 1, 0))
        groups.loc[order, "split"] = np.array(SPLITS, object)[drawn]
    return records["group"].map(groups["split"]).astype("str")


def balance(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return as many fakes as real images of each category and split, sorted by id.

    `records` have columns id, label, category, split. Raises `UserError` if a category has one label only.
    """
    labels = records.groupby("category")["label"].nunique()
    if len(alone := labels[labels < 2]):
        what = f"category {alone.index[0]} has images of one label only, so nothing is left of it at 1:1"
        cure = "add the other label's corpus (collect.corpora), or set annotate.balance: false"
        raise UserError(what, cure)
    records, rows = records.sort_values("id", ignore_index=True), []
    for (category, split), group in records.groupby(["category", "split"]):
        least = group["label"].value_counts().reindex([0, 1], fill_value=0).min()
        for label, side in group.groupby("label"):
            order = _rng(seed, "balance", category, split, label).permutation(len(side))
            rows.append(side.index.to_numpy()[order[:least]])
    return records.loc[np.sort(np.concatenate(rows))].reset_index(drop=True)


def plan(
    records: pd.DataFrame,
    categories: pd.DataFrame,
    *,
    val_fraction: float,
    test_fraction: float,
    balanced: bool,
    seed: int,
) -> pd.DataFrame:
    """Return the images of FakeClue with category and split, sorted by id.

    `records` are as `records.read_frame` has them; `categories`, from `categorize/categories.parquet`, are
    for records without one of their own; `balanced` means 1:1 within category and split. Raises `UserError`
    if an image has no category, and as `assign_splits` and `balance` do.
    """
    by_model = records["id"].map(categories.set_index("id")["category"])
    records = records.assign(category=records["category"].fillna(by_model))
    if len(missing := records.loc[records["category"].isna(), "id"]):
        what = f"{len(missing)} images have no category, e.g. {missing.iloc[0]}"
        raise UserError(what, "rerun the stage categorize: `dvc repro categorize`")
    records = records.assign(split=assign_splits(records, val_fraction, test_fraction, seed))
    return balance(records, seed) if balanced else records.sort_values("id", ignore_index=True)

"""Which images make FakeClue, and on which side of the split (paper section 3.2: fake to real 1:1; section 3.1: random).

Two things differ from the release on purpose. Images are split by source item (a video with its manipulations, a
photograph with its reproductions), since the release's split by row puts frames of one video in train and test. And the
1:1 of section 3.2 is kept within each category and split; the released data are 65:35 (`balance: false` keeps all).
"""

import zlib

import numpy as np
import pandas as pd

from fakevlm.errors import UserError

SPLITS = ("train", "val", "test")


def _rng(seed: int, *names: object) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("|".join(map(str, names)).encode())])


def with_categories(records: pd.DataFrame, categories: pd.DataFrame) -> pd.DataFrame:
    """The records' table with every category filled: the record's own, else the one that `categorize` found.

    Args:
        records: columns id, category and others.
        categories: columns id, category.

    Raises:
        UserError: a record has a category from neither.
    """
    found = records["id"].map(dict(zip(categories["id"], categories["category"], strict=True)))
    records = records.assign(category=records["category"].where(records["category"].notna(), found))
    lost = records.loc[records["category"].isna(), "id"]
    if len(lost):
        raise UserError(
            f"{len(lost)} images have no category, e.g. {lost.iloc[0]}",
            "rerun the stage categorize: `dvc repro categorize`",
        )
    return records


def assign_splits(records: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int) -> pd.Series:
    """The split of every record, by item: a split that a record has is kept, other items are drawn within category and label.

    Args:
        records: columns id, label, category, item, split (None where there is none yet).
        val_fraction, test_fraction: shares of the records. Those that have a split count: aerial images that generators learned
            from are in train already, so fewer of the others go there. Where too few are free, the shares are what they can be.
        seed: the run's seed.

    Returns:
        `train`, `val` or `test`, indexed like `records`.

    Raises:
        UserError: an item has two splits of its own, or the fractions leave nothing to train on.
    """
    if val_fraction + test_fraction >= 1:
        raise UserError(
            f"annotate.val_fraction + annotate.test_fraction = {val_fraction + test_fraction:g}",
            "leave something to train on",
        )
    own = records.dropna(subset="split").groupby("item")["split"].unique()
    torn = own[own.map(len) > 1]
    if len(torn):
        raise UserError(
            f"item {torn.index[0]} is in the corpus's splits {', '.join(sorted(torn.iloc[0]))} at once",
            "check the corpus's split files",
        )
    splits = own.map(lambda values: values[0]).to_dict()
    items = (
        records.sort_values("id")
        .groupby("item", sort=True)
        .agg(
            category=("category", "first"),
            labels=("label", lambda labels: str(sorted(set(labels)))),
            n=("id", "size"),
        )
    )
    for stratum, everything in items.groupby(["category", "labels"], sort=True):
        has = everything.index.map(splits)
        held = {split: int(everything["n"][has == split].sum()) for split in SPLITS}
        group, total = everything[has.isna()], int(everything["n"].sum())
        order = group.iloc[_rng(seed, "split", *stratum).permutation(len(group))]
        test = test_fraction - held["test"] / total
        val = val_fraction - held["val"] / total
        # The share of records that come before an item decides where it goes: works for items of any size.
        before = (order["n"].cumsum() - order["n"]) / total
        for item, share in before.items():
            in_test, in_val = share < test - 1e-9, share < max(test, 0) + val - 1e-9
            splits[item] = "test" if in_test else "val" if in_val else "train"
    return records["item"].map(splits)


def balance(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """As many fakes as real images within every category and split, drawn by lot.

    Args:
        records: columns id, label, category, split.
        seed: the run's seed.

    Raises:
        UserError: a category has only fakes or only real images in all splits.
    """
    sides = records.groupby("category")["label"].nunique()
    if len(alone := sides[sides < 2]):
        raise UserError(
            f"category {alone.index[0]} has images of one label only, so nothing is left of it at 1:1",
            "add the other label's corpus (collect.corpora), or set annotate.balance: false",
        )
    kept = []
    for (category, split), group in records.sort_values("id").groupby(["category", "split"], sort=True):
        least = group["label"].value_counts().reindex([0, 1], fill_value=0).min()
        for label, side in group.groupby("label", sort=True):
            chosen = _rng(seed, "balance", category, split, label).permutation(len(side))[:least]
            kept.append(side.iloc[np.sort(chosen)])
    return pd.concat(kept).sort_values("id")


def plan(
    records: pd.DataFrame,
    categories: pd.DataFrame,
    *,
    val_fraction: float,
    test_fraction: float,
    balanced: bool,
    seed: int,
) -> pd.DataFrame:
    """The images of FakeClue with category and split, sorted by id.

    Args:
        records: the collected records without images (`records.read_frame`).
        categories: `categorize/categories.parquet`.
        balanced: downsample to 1:1 within category and split.

    Raises:
        UserError: see `with_categories`, `assign_splits` and `balance`.
    """
    records = with_categories(records, categories)
    records = records.assign(split=assign_splits(records, val_fraction, test_fraction, seed))
    return (balance(records, seed) if balanced else records.sort_values("id")).reset_index(drop=True)

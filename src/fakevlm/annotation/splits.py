"""Which images make FakeClue, and on which side of the split (paper section 3.2: fake to real 1:1; section 3.1: random).

Two things differ from the release on purpose. Images are split by source item (a video with its manipulations, a
photograph with its reproductions), since the release's split by row puts frames of one video in train and test. And the
1:1 of section 3.2 is kept within each category and split; the released data are 65:35 (`balance: false` keeps all).
"""

import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

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
    # By Arrow, which needs no Python object for each of a million ids.
    ids, known, names = (
        pa.array(column.astype("str"), pa.string())
        for column in (records["id"], categories["id"], categories["category"])
    )
    found = names.take(pc.index_in(ids, known)).to_pandas().set_axis(records.index)
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
        val_fraction, test_fraction: shares of the records. Those that have a split count: where many are in train already, fewer
            of the others go there; where too few are free, the shares are what they can be.
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
    items, names = pd.factorize(records["item"], sort=True)
    sizes, sides = np.bincount(items), _own(records, items, names)
    for stratum, where in _strata(records, items).items():
        size, own = sizes[where], sides[where]
        held = {split: int(size[own == split].sum()) for split in SPLITS}
        group, total = where[pd.isna(own)], int(size.sum())
        order = group[_rng(seed, "split", *stratum).permutation(len(group))]
        test = test_fraction - held["test"] / total
        val = val_fraction - held["val"] / total
        # The share of records that come before an item decides where it goes: works for items of any size.
        before = (sizes[order].cumsum() - sizes[order]) / total
        drawn = np.where(before < test - 1e-9, 2, np.where(before < max(test, 0) + val - 1e-9, 1, 0))
        sides[order] = np.array(SPLITS, object)[drawn]
    return pd.Series(sides[items], records.index, dtype="str")


def _own(records: pd.DataFrame, items: np.ndarray, names: pd.Index) -> np.ndarray:
    """The split that each item has already, None where it has none.

    Raises:
        UserError: an item has two.
    """
    given, known = pd.factorize(records["split"])  # -1: none
    least, most = np.full(len(names), len(known)), np.full(len(names), -1)
    np.minimum.at(least, items[given >= 0], given[given >= 0])
    np.maximum.at(most, items[given >= 0], given[given >= 0])
    torn = np.flatnonzero((most >= 0) & (least != most))
    if len(torn):
        splits = sorted(set(records["split"][items == torn[0]].dropna()))
        raise UserError(
            f"item {names[torn[0]]} is in the corpus's splits {', '.join(splits)} at once",
            "check the corpus's split files",
        )
    return np.array([*known, None], object)[most]


def _strata(records: pd.DataFrame, items: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """The items (by number) of each category and set of labels; the category is that of an item's first record by id."""
    ranked = records["id"].argsort().to_numpy()
    first = ranked[np.unique(items[ranked], return_index=True)[1]]
    values = sorted(set(records["label"]))
    has = np.stack([np.bincount(items[records["label"] == v], minlength=items.max() + 1) > 0 for v in values])
    bits, sets = np.unique((1 << np.arange(len(values))) @ has, return_inverse=True)
    texts = np.array([str([v for n, v in enumerate(values) if bit >> n & 1]) for bit in bits], object)
    table = pd.DataFrame({"category": records["category"].to_numpy()[first], "labels": texts[sets]})
    return table.groupby(["category", "labels"]).indices


def balance(records: pd.DataFrame, seed: int) -> np.ndarray:
    """The rows of as many fakes as real images within every category and split, drawn by lot, in the order of their ids.

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
    order = records["id"].argsort().to_numpy()
    slim, kept = records[["category", "split", "label"]].iloc[order].reset_index(drop=True), []
    for (category, split), group in slim.groupby(["category", "split"], sort=True):
        least = group["label"].value_counts().reindex([0, 1], fill_value=0).min()
        for label, side in group.groupby("label", sort=True):
            chosen = _rng(seed, "balance", category, split, label).permutation(len(side))[:least]
            kept.append(side.index.to_numpy()[chosen])
    return order[np.sort(np.concatenate(kept))]


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
    del categories  # as large as the records' ids
    records = records.assign(split=assign_splits(records, val_fraction, test_fraction, seed))
    rows = balance(records, seed) if balanced else records["id"].argsort().to_numpy()
    # Column by column, so that there are never two tables of a million records.
    columns = {name: records.pop(name).iloc[rows].array for name in list(records)}
    return pd.DataFrame(columns, copy=False)

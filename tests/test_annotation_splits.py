"""Which images make FakeClue: balanced, split by item, reproducible."""

import pandas as pd
import pytest

from fakevlm.annotation.splits import SPLITS, assign_splits, balance, plan, with_categories
from fakevlm.errors import UserError


def table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "label", "category", "item", "split"])


def many(category: str, fakes: int, reals: int) -> list[tuple]:
    sides = [(0, "fake", fakes), (1, "real", reals)]
    return [
        (f"{category}/{s}/{n:03d}", label, category, f"{s}{category}{n}", None)
        for label, s, k in sides
        for n in range(k)
    ]


def frames() -> list[tuple]:
    """Ten videos, four fakes and one real frame each; official splits."""
    rows = []
    for v in range(10):
        split = "test" if v < 2 else "val" if v < 4 else "train"
        rows += [(f"ff/{v}/{n}", int(n == 0), "deepfake", f"v{v}", split) for n in range(5)]
    return rows


def test_fractions_within_every_category_and_label() -> None:
    records = table(many("animal", 200, 100) + many("doc", 40, 80))
    splits = assign_splits(records, 0.1, 0.2, seed=3)
    shares = pd.crosstab([records["category"], records["label"]], splits, normalize="index")
    assert shares["test"].between(0.19, 0.21).all()
    assert shares["val"].between(0.09, 0.11).all()


def test_items_stay_together_and_official_splits_are_kept() -> None:
    records = table(frames() + [(f"s/{n}", n % 2, "satellite", f"photo{n // 2}", None) for n in range(60)])
    records["split"] = assign_splits(records, 0.1, 0.3, seed=3)
    assert records.groupby("item")["split"].nunique().max() == 1
    official = dict((r[0], r[4]) for r in frames())
    faces = records[records["category"] == "deepfake"]
    assert (faces["split"] == faces["id"].map(official)).all()
    assert set(records.loc[records["category"] == "satellite", "split"]) == set(SPLITS)


def test_records_that_have_a_split_count_in_the_shares() -> None:
    records = table(many("satellite", 100, 100))
    learned = records["id"].isin(records.loc[records["label"] == 1, "id"].iloc[:60])
    records.loc[learned, "split"] = "train"
    splits = assign_splits(records, 0.1, 0.2, seed=3)
    assert (splits[learned] == "train").all()
    shares = pd.crosstab(records["label"], splits, normalize="index")
    assert shares["test"].tolist() == pytest.approx([0.2, 0.2])
    assert shares["val"].tolist() == pytest.approx([0.1, 0.1])
    records.loc[records.index[records["label"] == 1][:85], "split"] = "train"
    scarce = assign_splits(records, 0.1, 0.2, seed=3)
    assert scarce[records["label"] == 1].value_counts().to_dict() == {"train": 85, "test": 15}


def test_balance_is_one_to_one_in_every_category_and_split() -> None:
    records = table(many("animal", 90, 50) + many("doc", 20, 40) + frames())
    made = plan(
        records,
        pd.DataFrame({"id": [], "category": []}),
        val_fraction=0.1,
        test_fraction=0.2,
        balanced=True,
        seed=1,
    )
    counts = made.groupby(["category", "split"])["label"].agg(["sum", "size"])
    assert (2 * counts["sum"] == counts["size"]).all()
    assert len(made) == 2 * (50 + 20 + 10)
    assert made["id"].is_monotonic_increasing
    everything = plan(
        records,
        pd.DataFrame({"id": [], "category": []}),
        val_fraction=0.1,
        test_fraction=0.2,
        balanced=False,
        seed=1,
    )
    assert len(everything) == len(records)


def test_draws_depend_on_the_seed_and_not_on_the_order_or_on_other_categories() -> None:
    none = pd.DataFrame({"id": [], "category": []})
    options = {"val_fraction": 0.1, "test_fraction": 0.2, "balanced": True}
    animals, docs = many("animal", 90, 50), many("doc", 20, 40)
    made = plan(table(animals + docs), none, seed=1, **options)
    turned = plan(table(docs + animals[::-1]), none, seed=1, **options)
    pd.testing.assert_frame_equal(made, turned)
    other = plan(table(animals + docs), none, seed=2, **options)
    assert set(made["id"]) != set(other["id"])
    alone = plan(table(animals), none, seed=1, **options)
    pd.testing.assert_frame_equal(alone, made[made["category"] == "animal"].reset_index(drop=True))


def test_categories_are_filled_in_and_the_records_own_are_kept() -> None:
    records = table([("a", 0, None, "a", None), ("b", 1, "doc", "b", None)])
    found = pd.DataFrame({"id": ["b", "a"], "category": ["animal", "scene"]})
    assert list(with_categories(records, found)["category"]) == ["scene", "doc"]
    with pytest.raises(UserError, match="categorize"):
        with_categories(records, found.iloc[:1])


def test_what_cannot_be_split_is_explained() -> None:
    torn = table([("a", 0, "doc", "x", "train"), ("b", 1, "doc", "x", "test")])
    with pytest.raises(UserError, match="item x"):
        assign_splits(torn, 0.1, 0.1, seed=1)
    with pytest.raises(UserError, match="train on"):
        assign_splits(torn, 0.5, 0.5, seed=1)
    with pytest.raises(UserError, match="one label only"):
        balance(table(many("doc", 4, 0)).assign(split="train"), seed=1)

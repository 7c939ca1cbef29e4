"""Which images make FakeClue: balanced, split by group, reproducible."""

import pandas as pd
import pytest

from fakevlm.annotation.splits import SPLITS, assign_splits, plan
from fakevlm.errors import UserError


def table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "label", "category", "group", "split"])


def many(category: str, fakes: int, reals: int) -> list[tuple]:
    return [
        (f"{category}/{side}/{n:03d}", label, category, f"{side}{category}{n}", None)
        for label, side, count in [(0, "fake", fakes), (1, "real", reals)]
        for n in range(count)
    ]


def frames() -> list[tuple]:
    """Ten videos, four fakes and one real frame each; official splits."""
    splits = ["test"] * 2 + ["val"] * 2 + ["train"] * 6
    return [(f"ff/{v}/{n}", int(n == 0), "deepfake", f"v{v}", splits[v]) for v in range(10) for n in range(5)]


def planned(rows: list[tuple], balanced: bool = True, seed: int = 1, **categories: str) -> pd.DataFrame:
    by_model = pd.DataFrame(categories.items(), columns=["id", "category"])
    return plan(table(rows), by_model, val_fraction=0.1, test_fraction=0.2, balanced=balanced, seed=seed)


@pytest.mark.parametrize(("given", "shares"), [(0, (70, 10, 20)), (60, (70, 10, 20)), (85, (85, 0, 15))])
def test_shares_hold_within_category_and_label_and_count_given_splits(given: int, shares: tuple) -> None:
    records = table(many("satellite", 100, 100) + many("doc", 200, 100))
    real = records.index[(records["category"] == "satellite") & (records["label"] == 1)]
    records.loc[real[:given], "split"] = "train"
    splits = assign_splits(records, 0.1, 0.2, seed=3)
    assert (splits[real[:given]] == "train").all()
    counts = pd.crosstab([records["category"], records["label"]], splits)[list(SPLITS)]
    assert tuple(counts.loc["satellite", 1]) == shares
    assert counts.drop(("satellite", 1)).to_numpy().tolist() == [[140, 20, 40], [70, 10, 20], [70, 10, 20]]


def test_balance_is_one_to_one_in_every_category_and_split_and_items_stay_together() -> None:
    pairs = [(f"s/{n}", n % 2, "satellite", f"photo{n // 2}", None) for n in range(60)]
    rows = many("animal", 90, 50) + many("doc", 20, 40) + frames() + pairs
    chosen = planned(rows)
    assert chosen.groupby("group")["split"].nunique().max() == 1
    official = {row[0]: row[4] for row in frames()}
    kept = dict(zip(chosen["id"], chosen["split"], strict=True))
    assert kept | official == official | kept, "official splits are kept"
    counts = chosen.groupby(["category", "split"])["label"].agg(["sum", "size"])
    assert (2 * counts["sum"] == counts["size"]).all()
    assert len(chosen) == 2 * (50 + 20 + 10 + 30)
    assert chosen["id"].is_monotonic_increasing
    assert len(planned(rows, balanced=False)) == len(rows)


def test_draws_depend_on_the_seed_alone() -> None:
    animals, docs = many("animal", 90, 50), many("doc", 20, 40)
    chosen = planned(animals + docs)
    pd.testing.assert_frame_equal(chosen, planned(docs + animals[::-1]))
    assert set(chosen["id"]) != set(planned(animals + docs, seed=2)["id"])
    without_docs = chosen[chosen["category"] == "animal"].reset_index(drop=True)
    pd.testing.assert_frame_equal(planned(animals), without_docs)


def test_categories_are_filled_in_and_the_records_own_are_kept() -> None:
    rows = [("a", 0, None, "a", None), ("b", 1, "doc", "b", None)]
    assert list(planned(rows, balanced=False, b="animal", a="scene")["category"]) == ["scene", "doc"]


def test_errors_name_the_cause() -> None:
    with pytest.raises(UserError, match="categorize"):
        planned([("a", 0, None, "a", None)], b="animal")
    with pytest.raises(UserError, match="one label only"):
        planned(many("doc", 4, 0))
    with pytest.raises(UserError, match="group x"):
        assign_splits(table([("a", 0, "doc", "x", "train"), ("b", 1, "doc", "x", "test")]), 0.1, 0.1, seed=1)

"""Scores of hand-made answers, counted by hand."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fakevlm.config.params import load_params
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.evaluation.benchmarks import forced_verdicts, score
from fakevlm.evaluation.explanations import clue_tables
from fakevlm.evaluation.metrics import by_subset, overview

KINDS = {"a": ("smooth", "halo"), "b": ("grid",), "c": (), "d": (), "e": ("tint",)}
BOX = (0.1, 0.1, 0.4, 0.4)
GROUND_TRUTH = {
    path: GroundTruth(path, int(path == "d"), "animal", [Artifact(kind, BOX, 0.8) for kind in kinds])
    for path, kinds in KINDS.items()
}
SMOOTH_AND_GRID = (
    "This is a fake image. Texture: the surface is overly smooth and waxy; a checkerboard grid is visible."
)
GRID = "This is a fake image. Texture: a checkerboard grid is visible, there is no halo."


def test_clues_count_kinds_on_fakes_with_visible_artifacts_only() -> None:
    texts = [SMOOTH_AND_GRID, GRID, GRID, GRID, GRID, ""]
    annotated, true, named = clue_tables(["a", "b", "c", "d", "unknown", "e"], texts, GROUND_TRUTH)
    assert np.flatnonzero(annotated).tolist() == [0, 1, 5]
    assert true[annotated].sum(axis=1).tolist() == [2, 1, 1]
    assert named[annotated].sum(axis=1).tolist() == [2, 1, 0]
    assert (true & named)[annotated].sum(axis=1).tolist() == [1, 1, 0]
    assert not (true | named)[~annotated].any()


def _frame(method: str = "FakeVLM") -> pd.DataFrame:
    columns = ["id", "label", "category", "generator", "question", "text", "p_fake", "verdict", "reference"]
    rows = [
        ("a", 0, "animal", "adm", None, SMOOTH_AND_GRID, 0.9, "fake", SMOOTH_AND_GRID),
        ("b", 0, "animal", "glide", None, GRID, 0.8, "fake", ""),
        ("e", 0, "doc", "glide", None, "This is a real image.", 0.3, "real", "This is a fake image."),
        ("c", 0, "doc", None, None, "A dog.", 0.6, "unparsed", ""),
        ("d", 1, "doc", None, None, "This is a real image.", 0.4, "real", ""),
        ("f", 1, "animal", None, None, "This is a real image.", 0.2, "real", ""),
    ]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(method=method, item=frame["id"])


def _encode(sentences) -> np.ndarray:
    return np.ones((len(sentences), 1))


@pytest.fixture(scope="module")
def scored() -> pd.DataFrame:
    frame = _frame()
    frame["verdict_forced"] = forced_verdicts(frame)
    return score(frame, GROUND_TRUTH, load_params(), "fakeclue", encode=_encode)


def _value(frame: pd.DataFrame, subset: str, metric: str) -> tuple[float, int]:
    ((value, n),) = frame.query("subset == @subset and metric == @metric")[["value", "n"]].to_numpy()
    return pytest.approx(value), n


def test_scores_by_hand(scored: pd.DataFrame) -> None:
    """Counted on the six rows above; a generator's AUC is of its fakes against all real images."""
    counted = pd.read_csv(Path(__file__).with_name("scores_by_hand.csv"), dtype=str)
    for row in counted.itertuples():
        assert _value(scored, row.subset, row.metric) == (float(Fraction(row.value)), int(row.n)), row


def test_a_forced_choice_decides_only_where_the_text_gives_no_verdict() -> None:
    frame = _frame()
    assert forced_verdicts(frame).tolist() == frame["verdict"].replace("unparsed", "fake").tolist()
    frame["verdict_forced"] = forced_verdicts(frame.assign(p_fake=float("nan")))
    assert (frame["verdict_forced"].isna() == (frame["verdict"] == "unparsed")).all()
    scored = score(frame, GROUND_TRUTH, load_params(), "fakeclue", encode=_encode)
    assert not scored["metric"].str.endswith("_forced").any(), "without P(fake) there was no choice"


def test_rows_are_defined_and_unique_and_their_intervals_hold_the_value(scored: pd.DataFrame) -> None:
    pairs = set(zip(scored["subset"], scored["metric"], strict=True))
    undefined = {("label=real", name) for name in ("auc", "f1_fake", "rouge_l")}
    undefined.add(("kind=float", "clue_recall"))
    assert not pairs & undefined
    assert scored["value"].notna().all()
    assert not scored.duplicated(["method", "benchmark", "subset", "metric"]).any()
    assert not (scored["ci_low"] > scored["value"] + 1e-9).any()  # there may be none
    assert not (scored["ci_high"] < scored["value"] - 1e-9).any()
    assert scored["ci_low"].notna().sum() > len(scored) / 2


def test_ddvqa_decides_on_the_image_and_explains_every_question() -> None:
    image, nose = "Does the image looks real/fake?", "Does the person's nose look real/fake?"
    rows = [
        ("v1#0", 0, image, "The image looks fake.", "fake", "The image looks fake.\nIt is fake."),
        ("v1#1", 0, nose, "The nose looks real.", "real", "The nose looks real."),
        ("v2#0", 1, image, "The image looks real.", "real", "Nothing to see."),
    ]
    frame = pd.DataFrame(rows, columns=["id", "label", "question", "text", "verdict", "reference"])
    frame = frame.assign(method="FakeVLM", category="deepfake", generator=None, p_fake=[0.9, 0.1, 0.2])
    frame["item"] = ["v1", "v1", "v2"]
    scored = score(frame, {}, load_params(), "ddvqa", families=("all",), encode=_encode)
    assert set(scored["subset"]) == {"all"}
    assert _value(scored, "all", "acc") == (1.0, 2)
    assert _value(scored, "all", "rouge_l") == (2 / 3, 3)


def test_methods_are_scored_apart_and_detectors_have_no_words() -> None:
    frame = pd.concat([_frame(), _frame("CNNSpot").assign(text=None, verdict_forced="fake")])
    scored = score(frame, GROUND_TRUTH, load_params(), "fakeclue", encode=_encode)
    metrics = set(scored[scored["method"] == "CNNSpot"]["metric"])
    assert metrics == {"acc", "f1_real", "f1_fake", "f1_macro", "auc", "unparsed"}
    table = overview(scored)
    assert list(table.index) == ["FakeVLM", "CNNSpot"]
    assert table.loc["FakeVLM", "acc"].startswith("0.667 [")
    assert table.loc["CNNSpot", "rouge_l"] == "–"
    by_generator = by_subset(scored, "auc", "generator")
    assert by_generator.loc["CNNSpot"].to_dict() == {"adm": 1.0, "glide": 0.75}
    assert by_subset(scored, "auc", "kind").empty

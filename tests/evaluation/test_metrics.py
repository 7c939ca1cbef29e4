"""Metrics against hand counts, the numbers of the released weights, scikit-learn and rouge-score."""

import random
from functools import partial

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import binomtest
from sklearn.metrics import f1_score, roc_auc_score

from fakevlm.evaluation import metrics
from fakevlm.evaluation.explanations import css, rouge_l
from fakevlm.evaluation.metrics import FAKE, REAL

# The released weights on FakeClue's test set: label, verdict, count.
RELEASED = np.repeat(
    [(FAKE, FAKE), (FAKE, REAL), (FAKE, -1), (REAL, FAKE), (REAL, REAL)], [3168, 20, 4, 48, 1760], axis=0
)


def test_reproduces_the_released_weights_scores() -> None:
    """The published numbers are those of the answers with a verdict."""
    label, verdict = RELEASED[RELEASED[:, 1] >= 0].T
    f1s = [metrics.f1(label, verdict, positive) for positive in (REAL, FAKE)]
    values = (metrics.accuracy(label, verdict), *f1s, metrics.f1_macro(label, verdict))
    assert [f"{v:.4f}" for v in values] == ["0.9864", "0.9810", "0.9894", "0.9852"]


def test_unparsed_answers_are_wrong_for_their_class() -> None:
    label, verdict = RELEASED.T
    assert metrics.codes(np.array(["fake", "real", "unparsed"])).tolist() == [FAKE, REAL, -1]
    assert metrics.accuracy(label, verdict) == pytest.approx((3168 + 1760) / 5000)
    # A miss among the fakes; no false positive among the reals.
    assert metrics.f1(label, verdict, FAKE) == pytest.approx(2 * 3168 / (2 * 3168 + 20 + 4 + 48))
    assert metrics.f1(label, verdict, REAL) == pytest.approx(2 * 1760 / (2 * 1760 + 48 + 20))


@pytest.mark.parametrize("digits", [1, 8])
def test_f1_and_auc_agree_with_scikit_learn_ties_included(digits: int) -> None:
    generator = np.random.default_rng(1)
    label, verdict = generator.integers(0, 2, 400), generator.integers(-1, 2, 400)
    for positive in (FAKE, REAL):
        expected = f1_score(label, verdict, labels=[positive], average="macro")
        assert metrics.f1(label, verdict, positive) == pytest.approx(expected)
    p_fake = np.round(np.clip(generator.normal(0.5 - 0.1 * label, 0.2), 0, 1), digits)
    assert metrics.auc(label, p_fake) == pytest.approx(roc_auc_score(label == FAKE, p_fake))
    weights = generator.integers(0, 4, (3, 400)).astype(np.float32)
    expected = [roc_auc_score(label == FAKE, p_fake, sample_weight=w) for w in weights]
    assert metrics.auc(label, p_fake, weights) == pytest.approx(expected)
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
    item = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, *np.repeat(np.arange(6, 18), 3)])
    weights = metrics.draws(label, item, 200, seed=3)
    assert weights.shape == (200, 45)
    assert (weights[:, 0:6:2] == weights[:, 1:6:2]).all()  # frames of one video are drawn together
    assert (weights[:, 9::3] == weights[:, 10::3]).all()  # and a video with its manipulations
    assert (weights[:, 9::3] == weights[:, 11::3]).all()
    for stratum, total in ((slice(0, 6), 6), (slice(6, 9), 3), (slice(9, 45), 36)):
        assert (weights[:, stratum].sum(axis=1) == total).all()
    assert (weights == metrics.draws(label, item, 200, seed=3)).all()
    assert not (weights == metrics.draws(label, item, 200, seed=4)).all()
    assert not (weights[:, 0] == weights[:, 6]).all()  # the strata are drawn apart


def test_what_never_varies_is_not_certain() -> None:
    label = np.array([REAL] * 9 + [FAKE] * 9)
    weights = metrics.draws(label, np.arange(18), 200, seed=0)
    for hits, verdict in ((18, label), (0, 1 - label)):
        interval = metrics.interval(partial(metrics.accuracy, label, verdict), weights, items=18)
        exact = binomtest(hits, 18).proportion_ci(method="exact")
        assert interval == pytest.approx((hits / 18, exact.low, exact.high))
    # No share of items, or neither all nor nothing (one label always right, the other never): not known.
    assert np.isnan(metrics.interval(partial(metrics.accuracy, label, label), weights)[1:]).all()
    fakes = partial(metrics.accuracy, label, np.ones(18))
    assert np.isnan(metrics.interval(fakes, weights, items=18)[1:]).all()


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

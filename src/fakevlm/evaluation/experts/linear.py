"""Logistic regression on standardised features, its strength of regularisation chosen on validation images.

What scikit-learn's `LogisticRegression` does, but over features in a file: 100,000 images times UnivFD's 3,072 numbers are 1.2 GB,
and scikit-learn holds them four times over.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from scipy.optimize import minimize
from scipy.special import expit

from fakevlm import paths
from fakevlm.data.records import Record
from fakevlm.evaluation.experts.base import batches, judge, mark_best, targets
from fakevlm.evaluation.experts.features import Features, kept
from fakevlm.progress import bar

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C: the smaller, the simpler
ITERATIONS = 500
# scikit-learn's, so that the weights are those it would find.
_OPTIONS = {"maxiter": ITERATIONS, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}


@dataclass(frozen=True)
class Linear:
    """P(fake) = sigmoid(((x − mean) / scale) · weight + bias).

    Attributes:
        mean, scale, weight: (d,) float32.
        bias: (1,) float32.
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(n, d) → (n,) float64."""
        return self.of_standard(self.standard(features))

    def standard(self, features: np.ndarray) -> np.ndarray:
        """(n, d) → (n, d): the features less their mean, in units of their scale."""
        return (features - self.mean) / self.scale

    def of_standard(self, rows: np.ndarray) -> np.ndarray:
        """P(fake) of features that `standard` has been through: (n, d) → (n,) float64."""
        # Summed row by row: a matrix product rounds differently with the number of rows, P(fake) must not.
        return expit(((rows * self.weight).sum(1) + self.bias).astype(np.float64))


def fit_linear(
    train: Features, fake: np.ndarray, val: Features, val_fake: np.ndarray
) -> tuple[Linear, pd.DataFrame]:
    """The regression of the best validation AUC among `STRENGTHS`, and the log of all.

    Args:
        train, val: (n, d) and (m, d) features; standardised where they lie.
        fake, val_fake: (n,) and (m,) float32, 1 for fake.
    """
    mean, scale = _moments(train)
    standard = Linear(mean, scale, np.zeros_like(mean), np.zeros(1, np.float32)).standard
    for features in (train, val):
        features.change(standard)
    models, log = [], []
    for strength in STRENGTHS:
        found = minimize(
            lambda at, strength=strength: _loss(at, train, fake, 1.0 / (strength * len(train))),
            np.zeros(train.width + 1, np.float32),
            method="L-BFGS-B",
            jac=True,
            options=_OPTIONS,
        )
        if found.nit >= ITERATIONS:
            warnings.warn(f"C={strength:g}: not converged after {ITERATIONS} steps", stacklevel=2)
        weight, bias = found.x[:-1].astype(np.float32), found.x[-1:].astype(np.float32)
        model = Linear(mean, scale, weight, bias)
        models.append(model)
        loss = judge(fake, _scores(model, train))["val_loss"]
        scores = judge(val_fake, _scores(model, val))
        log.append({"setting": f"C={strength:g}", "train_loss": loss, **scores})
    table = mark_best(log)
    return models[int(table.chosen.argmax())], table


def _scores(model: Linear, standardised: Features) -> np.ndarray:
    return np.concatenate([model.of_standard(block) for _, block in standardised.blocks()])


def _moments(features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature: (d,) and (d,) float32."""
    mean = sum(block.sum(0, dtype=np.float64) for _, block in features.blocks()) / len(features)
    squares = sum(((block - mean) ** 2).sum(0) for _, block in features.blocks())
    scale = np.sqrt(squares / len(features))
    scale[scale < 1e-6] = 1.0  # a feature that never varies says nothing
    return mean.astype(np.float32), scale.astype(np.float32)


def _loss(at: np.ndarray, rows: Features, fake: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
    """The mean log loss with its penalty, and the gradient.

    Args:
        at: (d + 1,) float32, weights and bias.
        rows: (n, d) standardised features.
        fake: (n,), 1 for fake.
        penalty: of the squared weights, halved.
    """
    # In 32 bits, as scikit-learn computes on features of 32 bits; only what is added up over blocks is wider.
    weight, bias = at[:-1], at[-1]
    losses, slopes = np.empty((2, len(rows)), np.float32)
    gradient = np.zeros(rows.width)
    for where, block in rows.blocks():
        # Signed, so that nothing cancels: log(1 + exp(x)) for a real image, log(1 + exp(−x)) for a fake.
        sign = 1.0 - 2.0 * fake[where].astype(np.float64)
        logits = sign * (block @ weight + bias)
        losses[where] = np.logaddexp(0.0, logits)
        slopes[where] = sign * expit(logits)
        slopes[where] /= len(rows)
        gradient += block.T @ slopes[where]
    loss = float(losses.sum() / len(rows)) + float(0.5 * penalty * (weight @ weight))
    return loss, np.append(gradient.astype(np.float32) + penalty * weight, slopes.sum())


def fit_records(
    look: Callable[[list[Image.Image]], np.ndarray],
    train: Sequence[Record],
    val: Sequence[Record],
    batch_size: int,
    what: str,
) -> tuple[Linear, pd.DataFrame]:
    """`fit_linear` of what is seen in records; the features lie in `runs/experts/` meanwhile.

    Args:
        look: k RGB images → (k, d) float32.
        train, val: records of both classes.
        batch_size: images looked at together.
        what: the progress line's name.
    """
    fake, val_fake = targets(train), targets(val)
    folder = paths.runs("experts")
    with bar(len(train) + len(val), what) as progress:

        def seen(records: Sequence[Record]) -> Iterator[np.ndarray]:
            for batch in batches(records, batch_size):
                yield look([record.pil() for record in batch])
                progress.update(len(batch))

        with kept(seen(train), folder) as there, kept(seen(val), folder) as apart:
            return fit_linear(there, fake, apart, val_fake)

"""Logistic regression on standardised features, its strength of regularisation chosen on validation images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fakevlm.evaluation.experts.base import judge, mark_best

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C: the smaller, the simpler


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
        """(n, d) → (n,) float32."""
        # Summed row by row: a matrix product rounds differently with the number of rows, P(fake) must not.
        logits = (((features - self.mean) / self.scale) * self.weight).sum(1) + self.bias
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


def fit_linear(
    train: np.ndarray, fake: np.ndarray, val: np.ndarray, val_fake: np.ndarray, seed: int
) -> tuple[Linear, pd.DataFrame]:
    """The regression of the best validation AUC among `STRENGTHS`, and the log of all.

    Args:
        train, val: (n, d) and (m, d) features.
        fake, val_fake: (n,) and (m,), 1 for fake.
        seed: of the solver (which does not draw, with lbfgs; kept for other solvers' sake).
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0  # a feature that never varies says nothing
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    models, log = [], []
    for strength in STRENGTHS:
        solver = LogisticRegression(C=strength, max_iter=500, random_state=seed)
        solver.fit((train - mean) / scale, fake)
        model = Linear(mean, scale, solver.coef_[0].astype(np.float32), solver.intercept_.astype(np.float32))
        models.append(model)
        loss = judge(fake, model(train))["val_loss"]
        log.append({"setting": f"C={strength:g}", "train_loss": loss, **judge(val_fake, model(val))})
    table = mark_best(log)
    return models[int(table.chosen.argmax())], table

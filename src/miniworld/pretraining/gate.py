"""The gate after each phase: can the tower, tuned on labels, tell fake from real?

A supervised copy of the tower is tuned and thrown away: the base itself never sees a label. The images are
renders of their own, neither the pool's nor the corpora's."""

import copy

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from fakevlm.data.records import CATEGORIES, FAKE
from fakevlm.progress import bar
from miniworld.pretraining.pool import Norm, normalised
from miniworld.world import shoot

SEED = 992


def gate_set(images: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, 96, 96, 3) uint8 and labels (N,) 1 = fake, balanced as FakeClue-mini is."""
    shots = []
    for n in range(first, first + images):
        fake = (n // len(CATEGORIES)) % 2 == 0
        count = (0, 0) if fake and n % 29 == 0 else (1, 3)  # some fakes show nothing
        rng = np.random.default_rng([SEED, n])
        shots.append(shoot(CATEGORIES[n % len(CATEGORIES)], rng, fake=fake, count=count))
    labels = np.array([shot.label == FAKE for shot in shots], np.int64)
    return np.stack([shot.pixels for shot in shots]), labels


def supervised(
    tower: nn.Module, norm: Norm, *, train: int = 3000, test: int = 1000, epochs: int = 6
) -> tuple[float, float]:
    """Return accuracy and AUC of a copy of the tower tuned on labels, on images it was not tuned on."""
    tower = copy.deepcopy(tower)
    head = nn.Linear(2 * tower.config.hidden_size, 2)
    x, y = gate_set(train, 0)
    weights = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 5e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    steps = epochs * (train // 32)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=steps, pct_start=0.05)

    def logits(pixels: np.ndarray, flip: np.ndarray) -> torch.Tensor:
        features = tower(pixel_values=normalised(pixels, norm, flip)).last_hidden_state[:, 1:]
        return head(torch.cat([features.mean(1), features.amax(1)], -1))

    rng = np.random.default_rng(SEED)
    with bar(steps, "gate: tuning a copy of the tower", "step") as progress:
        for _ in range(epochs):
            order = rng.permutation(train)
            for start in range(0, train - 31, 32):
                rows = order[start : start + 32]
                loss = nn.functional.cross_entropy(
                    logits(x[rows], rng.random(32) < 0.5), torch.from_numpy(y[rows])
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if progress.n < steps - 1:
                    plan.step()
                progress.update()
    x, y = gate_set(test, 1_000_000)
    with torch.inference_mode():
        parts = [x[a : a + 100] for a in range(0, test, 100)]
        scores = torch.cat(
            [logits(part, np.zeros(len(part), bool)).softmax(-1)[:, 1] for part in parts]
        ).numpy()
    return float(((scores > 0.5) == y).mean()), float(roc_auc_score(y, scores))

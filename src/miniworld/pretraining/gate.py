"""The gate between the two phases: can the tower, tuned on labels, tell fake from real?

What a supervised copy of the tower cannot see, no language model will put into words. The copy is thrown away: the base
itself is never told a label. Its images are renders of their own, neither the pool's nor the corpora's.
"""

import copy

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from fakevlm.data.records import CATEGORIES, FAKE
from fakevlm.progress import bar
from miniworld.world import shoot

SEED = 992


def gate_set(count: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 96, 96, 3) uint8 and labels (N,) 1 = fake, balanced over labels and categories as FakeClue-mini is."""
    shots = []
    for n in range(first, first + count):
        fake = (n // len(CATEGORIES)) % 2 == 0
        invisible = fake and n % 29 == 0
        rng = np.random.default_rng([SEED, n])
        shots.append(
            shoot(CATEGORIES[n % len(CATEGORIES)], rng, fake=fake, count=(0, 0) if invisible else (1, 3))
        )
    return np.stack([shot.pixels for shot in shots]), np.array(
        [shot.label == FAKE for shot in shots], np.int64
    )


def _normalised(pixels: np.ndarray, mean: list[float], std: list[float]) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div_(255)
    return (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def supervised(
    tower: nn.Module,
    norm: tuple[list[float], list[float]],
    *,
    train: int = 3000,
    test: int = 1000,
    epochs: int = 6,
) -> tuple[float, float]:
    """Accuracy and AUC of a copy of the tower tuned on labels, on images it was not tuned on."""
    tower = copy.deepcopy(tower)
    head = nn.Linear(2 * tower.config.hidden_size, 2)
    x, y = gate_set(train, 0)
    weights = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 5e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    steps = epochs * (train // 32)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=steps, pct_start=0.05)

    def logits(pixels: np.ndarray) -> torch.Tensor:
        features = tower(pixel_values=_normalised(pixels, *norm)).last_hidden_state[:, 1:]
        return head(torch.cat([features.mean(1), features.amax(1)], -1))

    rng = np.random.default_rng(SEED)
    with bar(steps, "gate: tuning a copy of the tower", "step") as progress:
        for _ in range(epochs):
            order = rng.permutation(train)
            for start in range(0, train - 31, 32):
                rows = order[start : start + 32]
                pixels = np.where((rng.random(32) < 0.5)[:, None, None, None], x[rows][:, :, ::-1], x[rows])
                loss = nn.functional.cross_entropy(logits(pixels), torch.from_numpy(y[rows]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if progress.n < steps - 1:
                    plan.step()
                progress.update()
    x, y = gate_set(test, 1_000_000)
    with torch.inference_mode():
        scores = torch.cat([logits(x[a : a + 100]).softmax(-1)[:, 1] for a in range(0, test, 100)]).numpy()
    return float(((scores > 0.5) == y).mean()), float(roc_auc_score(y, scores))

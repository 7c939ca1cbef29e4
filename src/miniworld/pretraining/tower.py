"""The vision tower's targets, and the gate that it has to pass.

Captions alone teach a tower of a million parameters next to nothing in minutes; targets for every patch do.
"""

import copy

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from fakevlm.data.records import CATEGORIES, FAKE
from fakevlm.progress import bar
from miniworld.canvas import Part
from miniworld.pretraining.pool import CATEGORY_NAMES, FILM_NAMES, GRID, KIND_NAMES, Pool
from miniworld.world import shoot

GATE_SEED = 992
_PATCH = (len(Part), len(KIND_NAMES), 1)  # outputs for a patch: parts, kinds of artifact, grain
_IMAGE = (len(CATEGORY_NAMES), 1, len(FILM_NAMES), len(KIND_NAMES))  # scene, light, film, kinds of artifact
Norm = tuple[list[float], list[float]]  # mean and standard deviation of the colour channels


def normalised(pixels: np.ndarray, norm: Norm, flip: np.ndarray) -> torch.Tensor:
    """Return images (B, H, W, 3) uint8 as (B, 3, H, W) for the tower, mirrored where `flip` (B,) is true."""
    x = np.where(flip[:, None, None, None], pixels[:, :, ::-1], pixels)
    x = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in norm)
    return (x - mean) / std


def pooled(features: torch.Tensor) -> torch.Tensor:
    """Return the mean and the maximum of patch features (B, 144, d) as (B, 2 d)."""
    return torch.cat([features.mean(1), features.amax(1)], -1)


class DenseHeads(nn.Module):
    """Linear heads on patch features (B, 144, d), and the dense loss."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, sum(_PATCH))
        self.image = nn.Linear(2 * width, sum(_IMAGE))

    def loss(
        self, features: torch.Tensor, pixels: torch.Tensor, pool: Pool, rows: np.ndarray, flip: np.ndarray
    ) -> torch.Tensor:
        """Return the dense loss of some rows of the pool, from their `normalised` pixels (B, 3, 96, 96)."""
        # Before the patches: the order of sums decides how gradients are rounded.
        whole_image = pooled(features)
        parts, kinds, grain = self.patch(features).split(_PATCH, -1)
        scene, light, film, image_kinds = self.image(whole_image).split(_IMAGE, -1)
        true_parts = _bits(_mirrored(pool.parts[rows], flip), len(Part))
        true_kinds = _bits(_mirrored(pool.kinds[rows], flip), len(KIND_NAMES))
        facts = pool.facts[rows]
        true_light = torch.from_numpy((facts[:, 1].astype(bool) ^ flip).astype(np.float32))
        bce, weight = F.binary_cross_entropy_with_logits, torch.full((len(KIND_NAMES),), 4.0)
        total = 0.5 * bce(parts, true_parts)
        total = total + 2.0 * bce(kinds, true_kinds, pos_weight=weight)
        total = total + 0.05 * F.mse_loss(grain[..., 0], _grain(pixels))
        total = total + 0.1 * F.cross_entropy(scene, torch.from_numpy(facts[:, 0].astype(np.int64)))
        total = total + 0.1 * bce(light[:, 0], true_light)
        total = total + 0.1 * bce(film, _bits(facts[:, 2], len(FILM_NAMES)))
        return total + 2.0 * bce(image_kinds, true_kinds.amax(1), pos_weight=weight)


def _mirrored(packed: np.ndarray, flip: np.ndarray) -> np.ndarray:
    cells = packed.reshape(-1, GRID, GRID)
    return np.where(flip[:, None, None], cells[:, :, ::-1], cells).reshape(len(packed), -1)


def _bits(packed: np.ndarray, count: int) -> torch.Tensor:
    """Return the lowest bits of unsigned integers (...) as float 0/1 (..., count)."""
    return torch.from_numpy((packed[..., None] >> np.arange(count, dtype=np.uint32) & 1).astype(np.float32))


def _grain(pixels: torch.Tensor) -> torch.Tensor:
    """Return the log high-frequency energy of each patch, (B, 144), from normalised pixels (B, 3, H, W)."""
    grey = pixels.mean(1, keepdim=True)
    high = grey - F.avg_pool2d(grey, 3, 1, 1)
    return torch.log(F.avg_pool2d(high**2, pixels.shape[-1] // GRID).flatten(1) + 1e-4)


def whiten_patches(tower: nn.Module, pixels: torch.Tensor) -> None:
    """Set a CLIP tower's patch embedding to whitened components of patches, its positions to 2-D sines."""
    embeddings = tower.vision_model.embeddings if hasattr(tower, "vision_model") else tower.embeddings
    conv = embeddings.patch_embedding
    size, width = conv.kernel_size[0], conv.out_channels
    patches = F.unfold(pixels, size, stride=size).transpose(1, 2).reshape(-1, conv.in_channels * size * size)
    centred = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    values, vectors = values.flip(0)[:width].clamp_min(1e-4), vectors.flip(1)[:, :width]
    kernel = (vectors / values.sqrt()).T
    with torch.no_grad():
        weight = torch.zeros_like(conv.weight)
        weight[: len(kernel)] = kernel.reshape(-1, *conv.weight.shape[1:])
        conv.weight.copy_(weight * 0.5)
        side = int((embeddings.position_embedding.weight.shape[0] - 1) ** 0.5)
        ys, xs = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        rates = 10000 ** -(torch.arange(width // 4) / (width // 4)) * 2.0
        waves = [f(v.reshape(-1, 1) * rates) for v in (xs, ys) for f in (torch.sin, torch.cos)]
        embeddings.position_embedding.weight[1:].copy_(torch.cat(waves, 1)[:, :width] * 0.3)


def gate_set(images: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (N, 96, 96, 3) uint8 and labels (N,) 1 = fake, balanced as FakeClue-mini is."""
    shots = []
    for n in range(first, first + images):
        fake = (n // len(CATEGORIES)) % 2 == 0
        count = (0, 0) if fake and n % 29 == 0 else (1, 3)  # some fakes show nothing
        rng = np.random.default_rng([GATE_SEED, n])
        shots.append(shoot(CATEGORIES[n % len(CATEGORIES)], rng, fake=fake, count=count))
    labels = np.array([shot.label == FAKE for shot in shots], np.int64)
    return np.stack([shot.pixels for shot in shots]), labels


def gate(tower: nn.Module, norm: Norm) -> tuple[float, float]:
    """Return accuracy and AUC of a copy of the tower tuned on labels, all on images made for this alone."""
    tower, train, test, epochs = copy.deepcopy(tower), 3000, 1000, 6
    head = nn.Linear(2 * tower.config.hidden_size, 2)
    x, y = gate_set(train, 0)
    weights = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, 5e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    steps = epochs * (train // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, total_steps=steps, pct_start=0.05)

    def logits(pixels: np.ndarray, flip: np.ndarray) -> torch.Tensor:
        return head(pooled(tower(pixel_values=normalised(pixels, norm, flip)).last_hidden_state[:, 1:]))

    rng = np.random.default_rng(GATE_SEED)
    with bar(steps, "gate: tuning a copy of the tower", "step") as progress:
        for _ in range(epochs):
            order = rng.permutation(train)
            for rows in np.split(order[: train // 32 * 32], train // 32):
                loss = F.cross_entropy(logits(x[rows], rng.random(32) < 0.5), torch.from_numpy(y[rows]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if progress.n < steps - 1:
                    schedule.step()
                progress.update()
    x, y = gate_set(test, 1_000_000)
    with torch.inference_mode():
        parts = [x[start : start + 100] for start in range(0, test, 100)]
        scores = [logits(part, np.zeros(len(part), bool)).softmax(-1)[:, 1] for part in parts]
    p_fake = torch.cat(scores).numpy()
    return float(((p_fake > 0.5) == y).mean()), float(roc_auc_score(y, p_fake))

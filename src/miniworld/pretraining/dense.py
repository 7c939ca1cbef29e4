"""Dense targets for the vision tower: parts and artifacts of every patch; scene, light and film of the image.

Vision is the miniature's bottleneck. Captions alone teach a tower of a million parameters next to nothing in
minutes; per-patch targets from the renderer do. The heads are thrown away afterwards."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from miniworld.canvas import Part
from miniworld.pretraining.pool import CATEGORY_NAMES, FILM_NAMES, GRID, KIND_NAMES, Pool

PARTS, KINDS, FILM, SCENES = len(Part), len(KIND_NAMES), len(FILM_NAMES), len(CATEGORY_NAMES)


class DenseHeads(nn.Module):
    """Linear heads on patch features (B, 144, d).

    A patch: parts, kinds of artifact, grain. An image: scene, light, film, kinds of artifact.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, PARTS + KINDS + 1)
        self.image = nn.Linear(2 * width, SCENES + 1 + FILM + KINDS)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = torch.cat([features.mean(1), features.amax(1)], -1)
        return self.patch(features), self.image(pooled)


def bits(packed: np.ndarray, count: int) -> torch.Tensor:
    """Return bits of uint32 (...) as float 0/1 (..., count)."""
    return torch.from_numpy(((packed[..., None] >> np.arange(count, dtype=np.uint32)) & 1).astype(np.float32))


def local_energy(pixels: torch.Tensor) -> torch.Tensor:
    """Return log high-frequency energy of each patch, (B, 144), from normalised pixels (B, 3, H, W)."""
    grey = pixels.mean(1, keepdim=True)
    high = grey - F.avg_pool2d(grey, 3, 1, 1)
    side = pixels.shape[-1] // GRID
    return torch.log(F.avg_pool2d(high**2, side).flatten(1) + 1e-4)


def loss(
    heads: DenseHeads,
    features: torch.Tensor,
    pixels: torch.Tensor,
    pool: Pool,
    rows: np.ndarray,
    flip: np.ndarray,
) -> torch.Tensor:
    """Return the dense loss of a batch.

    Args:
        features: (B, 144, d) patch features.
        pixels: (B, 3, 96, 96), normalised, already flipped where `flip` says so.
        rows: which rows of the pool.
        flip: (B,) bool, mirrored left to right.
    """
    patch, image = heads(features)

    def mirrored(packed: np.ndarray) -> np.ndarray:
        cells = packed.reshape(-1, GRID, GRID)
        return np.where(flip[:, None, None], cells[:, :, ::-1], cells).reshape(len(rows), -1)

    parts, kinds = bits(mirrored(pool.parts[rows]), PARTS), bits(mirrored(pool.kinds[rows]), KINDS)
    facts = pool.facts[rows]
    light = torch.from_numpy((facts[:, 1].astype(bool) ^ flip).astype(np.float32))
    film = bits(facts[:, 2].astype(np.uint32), FILM)
    a, b = PARTS, PARTS + KINDS
    total = 0.5 * F.binary_cross_entropy_with_logits(patch[..., :a], parts)
    weight = torch.full((KINDS,), 4.0)
    total = total + 2.0 * F.binary_cross_entropy_with_logits(patch[..., a:b], kinds, pos_weight=weight)
    total = total + 0.05 * F.mse_loss(patch[..., b], local_energy(pixels))
    c, d = SCENES + 1, SCENES + 1 + FILM
    total = total + 0.1 * F.cross_entropy(image[:, :SCENES], torch.from_numpy(facts[:, 0].astype(np.int64)))
    total = total + 0.1 * F.binary_cross_entropy_with_logits(image[:, SCENES], light)
    total = total + 0.1 * F.binary_cross_entropy_with_logits(image[:, c:d], film)
    return total + 2.0 * F.binary_cross_entropy_with_logits(image[:, d:], kinds.amax(1), pos_weight=weight)


def whiten_patches(tower: nn.Module, pixels: torch.Tensor) -> None:
    """Set the patch embedding to whitened principal components of image patches, and positions to 2-D sines.

    Args:
        tower: a `CLIPVisionModel`.
        pixels: (N, 3, H, W) normalised images to take patches from.
    """
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

"""Trains the miniature's EVA-02 on photographs whose file names carry their class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fakevlm.categorize.eva import Classifier, build, device, wrap
from fakevlm.categorize.synsets import FOUR
from fakevlm.config.params import Categorize
from fakevlm.errors import UserError
from fakevlm.progress import bar

VALIDATION = 0.15


def split(categories: Sequence[str], seed: int, fraction: float = VALIDATION) -> np.ndarray:
    """Which images are held out: a boolean mask with `fraction` of each category (at least one of each), drawn by `seed`."""
    rng = np.random.default_rng([seed, 2])
    held = np.zeros(len(categories), bool)
    for category in FOUR:
        own = np.flatnonzero(np.asarray(categories) == category)
        if len(own) > 1:
            held[rng.permutation(own)[: max(1, round(fraction * len(own)))]] = True
    return held


def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors half of the images, zooms and shifts each a little, and spoils a rectangle: (n, 3, h, w) → the same shape.

    The rectangle shows what lies opposite in the picture. A category must not hang on any one part: the fakes to be sorted
    later have parts that are doubled, shifted or smeared, and no photograph taught that.
    """
    n, _, height, width = batch.shape
    uniform = torch.rand(n, 8, generator=generator)
    zoom = 0.75 + 0.35 * uniform[:, 0]
    mirror = torch.where(uniform[:, 1] < 0.5, -1.0, 1.0)
    shift = (uniform[:, 2:4] - 0.5) * 0.3
    zero = torch.zeros(n)
    rows = [torch.stack([zoom * mirror, zero, shift[:, 0]], 1), torch.stack([zero, zoom, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    batch = F.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)
    centre, reach = uniform[:, 4:6, None], 0.05 + 0.15 * uniform[:, 6:8, None]
    down = (torch.arange(height)[None] / height - centre[:, 0]).abs() < reach[:, 0]
    across = (torch.arange(width)[None] / width - centre[:, 1]).abs() < reach[:, 1]
    return torch.where((down[:, :, None] & across[:, None, :])[:, None], batch.flip(2), batch)


def whiten(model: torch.nn.Module, pixels: Tensor) -> None:
    """Sets the patch embedding to the whitened principal components of patches: a start that a thousand images can build on.

    Args:
        model: a timm EVA; its embedding is changed in place.
        pixels: (n, 3, h, w) normalised images.
    """
    layer = model.patch_embed.proj
    side = layer.kernel_size[0]
    patches = F.unfold(pixels, side, stride=side).transpose(1, 2).reshape(-1, 3 * side * side)
    mean = patches.mean(0)
    variance, directions = torch.linalg.eigh(torch.cov((patches - mean).T))
    count = min(layer.out_channels, len(variance))
    # The eigenvectors come in rising order, and their signs differ between linear-algebra libraries.
    chosen = directions.flip(1)[:, :count].T
    chosen = chosen * chosen.sum(1, keepdim=True).sign()
    kernel = chosen / (variance.flip(0)[:count, None].clamp(min=0).sqrt() + 0.1)
    with torch.no_grad():
        layer.weight[:count] = kernel.view(count, 3, side, side)
        layer.bias[:count] = -(kernel @ mean)


def train(
    images: Sequence[Image.Image], categories: Sequence[str], params: Categorize, seed: int
) -> tuple[Classifier, pd.DataFrame]:
    """A classifier of the four categories and its log.

    Args:
        images: RGB photographs, any size.
        categories: their categories, of `FOUR`.
        params: sizes and settings; `params.model` plays no part.
        seed: of weights, order and augmentation.

    Returns:
        The classifier of the last epoch, and a table with epoch, loss (training), accuracy (on `split`'s held-out images).

    Raises:
        UserError: fewer than two images of a category that occurs, or only one category.
    """
    present = [category for category in FOUR if list(categories).count(category)]
    if len(present) < 2 or min(list(categories).count(category) for category in present) < 2:
        raise UserError(
            f"categorize: too few labelled photographs to learn from ({', '.join(present) or 'none'})",
            "give collect GenImage `nature` images named by synset (n02099601_12.JPEG), or name a model in categorize.model",
        )
    held = split(categories, seed)
    model = build(params, seed)
    classifier = wrap(model, FOUR)
    pixels = torch.stack([classifier.transform(image) for image in images])
    targets = torch.tensor([FOUR.index(category) for category in categories])
    fit, check = torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
    whiten(model, pixels[fit[:: 1 + len(fit) // 400]])
    # Photographs of people are rare among ImageNet's classes; without weights the rare categories are given up.
    rarity = 1 / torch.bincount(targets[fit], minlength=len(FOUR)).clamp(min=1).float().sqrt()
    weights = (rarity / rarity.mean()).to(device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, weight_decay=0.05)
    steps = params.epochs * -(-len(fit) // params.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, params.learning_rate, total_steps=max(steps, 2), pct_start=0.15
    )
    generator = torch.Generator().manual_seed(seed)
    log = []
    with bar(params.epochs * len(fit), "categorize: training EVA-02") as progress:
        for epoch in range(params.epochs):
            model.train()
            total = 0.0
            for chosen in fit[torch.randperm(len(fit), generator=generator)].split(params.batch_size):
                logits = model(augment(pixels[chosen], generator).to(device()))
                loss = F.cross_entropy(logits, targets[chosen].to(device()), weights, label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item() * len(chosen)
                progress.update(len(chosen))
            right = _predict(model, pixels[check], params.batch_size) == targets[check]
            log.append(
                {"epoch": epoch + 1, "loss": total / len(fit), "accuracy": right.float().mean().item()}
            )
    model.eval()
    return classifier, pd.DataFrame(log)


@torch.inference_mode()
def _predict(model: torch.nn.Module, pixels: Tensor, size: int) -> Tensor:
    model.eval()
    return torch.cat([model(part.to(device())).argmax(-1).cpu() for part in pixels.split(size)])

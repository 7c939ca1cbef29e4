"""EVA-02 classifiers of timm (Fang et al. 2024, the paper's reference [12]) for the four categories.

params.yaml names a model, or `train` makes a small one of photographs whose file names state their class."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor, nn

from fakevlm import paths
from fakevlm.categorize.synsets import FOUR, membership
from fakevlm.config.params import Categorize
from fakevlm.errors import UserError
from fakevlm.progress import bar

HELD_OUT = 0.15  # of each category
_WHITENED = 400  # images whose patches initialise the embedding


@dataclass
class Classifier:
    """An EVA-02 of timm with the meaning of its outputs."""

    model: nn.Module
    labels: list[str]  # its classes in order: synsets, or the four categories
    columns: Tensor  # (classes, 4), see `synsets.membership`
    transform: Any  # PIL image → normalised tensor of the size that the model was trained at

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return the summed probabilities of each category's classes: (len(images), 4) float32, as `FOUR`."""
        batch = torch.stack([self.transform(image) for image in images]).to(self.columns.device)
        return (self.model(batch).float().softmax(-1) @ self.columns).cpu().numpy()


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wrap(model: nn.Module, labels: Sequence[str]) -> Classifier:
    """Return the classifier of a timm model with classes `labels`, on the best device, in evaluation mode."""
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    columns = torch.from_numpy(membership(labels)).to(device())
    return Classifier(model.eval().to(device()), list(labels), columns, transform)


def build(params: Categorize, seed: int) -> nn.Module:
    """Return a small EVA-02 of random weights with four outputs: timm's with sub-LN, at other sizes."""
    side, grid = params.image_size, params.image_size // params.patch_size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(
            "eva02_base_patch14_224",
            img_size=side,
            patch_size=params.patch_size,
            embed_dim=params.width,
            depth=params.depth,
            num_heads=params.heads,
            ref_feat_shape=(grid, grid),
            num_classes=len(FOUR),
        )
    model.pretrained_cfg.update(
        input_size=(3, side, side), crop_pct=1.0, tag=None, label_names=list(FOUR), license=None
    )
    return model


def save(classifier: Classifier, folder: Path) -> None:
    """Write `model.safetensors` (16 bit) and `config.json` (sizes, preprocessing, class names)."""
    config = {"label_names": classifier.labels}
    save_for_hf(classifier.model.cpu().half(), folder, model_config=config, safe_serialization=True)


def load(name: str | Path) -> Classifier:
    """Return the classifier in a folder of timm's format, or timm's model of that name (ImageNet's classes).

    Raises `UserError` if it is neither, weights are missing, or the classes are not ImageNet's.
    """
    folder = paths.resolve(name)
    try:
        model = timm.create_model(f"local-dir:{folder}" if folder.is_dir() else str(name), pretrained=True)
    except Exception as error:  # timm, the hub and safetensors raise many kinds for a wrong name
        raise UserError(
            f"categorize.model: {name!r} cannot be loaded ({type(error).__name__}: {error})",
            "name a folder with timm's model.safetensors and config.json, or a model that "
            "timm.list_pretrained('eva02*') lists",
        ) from error
    labels = model.pretrained_cfg.get("label_names")
    if not labels:
        subset = infer_imagenet_subset(model)
        if subset is None:
            what = f"{name!r} has {model.num_classes} outputs, which are no ImageNet classes"
            raise UserError(f"categorize.model: {what}", "choose a model fine-tuned on ImageNet-1k or 22k")
        labels = ImageNetInfo(subset).label_names()
    return wrap(model, labels)


def split(categories: Sequence[str], seed: int) -> np.ndarray:
    """Return a mask of the held-out images: `HELD_OUT` of each category, at least one, drawn by `seed`."""
    rng = np.random.default_rng([seed, 2])
    held = np.zeros(len(categories), bool)
    for category in FOUR:
        rows = np.flatnonzero(np.asarray(categories) == category)
        if len(rows) > 1:
            held[rng.permutation(rows)[: max(1, round(HELD_OUT * len(rows)))]] = True
    return held


def augment(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of a (n, 3, h, w) batch, zoom and shift each image, and overwrite a rectangle of it.

    The rectangle shows the opposite part of the picture, so that no category hangs on a single part: the
    fakes to be sorted have parts that are doubled, shifted or smeared.
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


def whiten(model: nn.Module, pixels: Tensor) -> None:
    """Set a timm EVA's patch embedding, in place, to whitened principal components of patches of `pixels`.

    With this start a thousand images are enough. `pixels` are (n, 3, h, w), normalised.
    """
    layer = model.patch_embed.proj
    side = layer.kernel_size[0]
    patches = F.unfold(pixels, side, stride=side).transpose(1, 2).reshape(-1, 3 * side * side)
    mean = patches.mean(0)
    variance, directions = torch.linalg.eigh(torch.cov((patches - mean).T))
    count = min(layer.out_channels, len(variance))
    # eigh sorts in rising order; its signs differ between linear-algebra libraries.
    components = directions.flip(1)[:, :count].T
    components = components * components.sum(1, keepdim=True).sign()
    kernel = components / (variance.flip(0)[:count, None].clamp(min=0).sqrt() + 0.1)
    with torch.no_grad():
        layer.weight[:count] = kernel.view(count, 3, side, side)
        layer.bias[:count] = -(kernel @ mean)


def train(
    images: Sequence[Image.Image], categories: Sequence[str], params: Categorize, seed: int
) -> tuple[Classifier, pd.DataFrame]:
    """Return a small classifier of the four categories, trained on RGB photographs of any size, and its log.

    The log has epoch, loss (training) and accuracy (on those that `split` holds out). Raises `UserError` if
    there is only one category, or fewer than two images of one.
    """
    counts = Counter(categories)
    if len(counts) < 2 or min(counts.values()) < 2:
        present = ", ".join(name for name in FOUR if name in counts)
        raise UserError(
            f"categorize: too few labelled photographs to learn from ({present or 'none'})",
            "give collect GenImage `nature` images named by synset (n02099601_12.JPEG), or name a model in "
            "categorize.model",
        )
    held = split(categories, seed)
    model = build(params, seed)
    classifier = wrap(model, FOUR)
    pixels = torch.stack([classifier.transform(image) for image in images])
    targets = torch.tensor([FOUR.index(category) for category in categories])
    fit, check = torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
    whiten(model, pixels[fit[:: 1 + len(fit) // _WHITENED]])
    # ImageNet has few people: rare categories get more weight.
    rarity = 1 / torch.bincount(targets[fit], minlength=len(FOUR)).clamp(min=1).float().sqrt()
    weights = (rarity / rarity.mean()).to(device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, weight_decay=0.05)
    steps = params.epochs * -(-len(fit) // params.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, params.learning_rate, total_steps=max(steps, 2), pct_start=0.15
    )
    generator, log = torch.Generator().manual_seed(seed), []
    with bar(params.epochs * len(fit), "categorize: training EVA-02") as progress:
        for epoch in range(params.epochs):
            model.train()
            total = 0.0
            for rows in fit[torch.randperm(len(fit), generator=generator)].split(params.batch_size):
                logits = model(augment(pixels[rows], generator).to(device()))
                loss = F.cross_entropy(logits, targets[rows].to(device()), weights, label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                total += loss.item() * len(rows)
                progress.update(len(rows))
            model.eval()
            with torch.inference_mode():
                parts = pixels[check].split(params.batch_size)
                predicted = torch.cat([model(part.to(device())).argmax(-1).cpu() for part in parts])
            log.append((epoch + 1, total / len(fit), (predicted == targets[check]).float().mean().item()))
    return classifier, pd.DataFrame(log, columns=["epoch", "loss", "accuracy"])

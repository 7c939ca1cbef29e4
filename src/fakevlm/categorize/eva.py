"""EVA-02 classifiers of timm, with their classes mapped to the four categories.

EVA-02 (Fang et al. 2024, the paper's reference [12]) is a vision transformer with SwiGLU feed-forward blocks,
rotary position embeddings and a LayerNorm inside each block (sub-LN). params.yaml names a model, or `train`
makes a small one. Both are stored in timm's format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_model_data_config
from timm.models import save_for_hf

from fakevlm import paths
from fakevlm.categorize.synsets import FOUR, membership
from fakevlm.config.params import Categorize, check_widths
from fakevlm.errors import UserError


@dataclass
class Classifier:
    """An EVA-02 with the meaning of its outputs.

    Attributes:
        model: the timm model.
        labels: its classes in order: synsets, or the four categories.
        columns: (classes, 4), see `synsets.membership`.
        transform: PIL image → normalised tensor of the size that the model was trained at.
    """

    model: torch.nn.Module
    labels: list[str]
    columns: torch.Tensor
    transform: Any

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return category probabilities of RGB images, summed over each category's classes.

        Returns:
            (len(images), 4) float32, rows sum to one; columns as in `FOUR`.
        """
        batch = torch.stack([self.transform(image) for image in images]).to(self.columns.device)
        return (self.model(batch).float().softmax(-1) @ self.columns).cpu().numpy()


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wrap(model: torch.nn.Module, labels: Sequence[str]) -> Classifier:
    """Return the classifier of a timm model with classes `labels`, on the best device, in evaluation mode."""
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    columns = torch.from_numpy(membership(labels)).to(device())
    return Classifier(model.eval().to(device()), list(labels), columns, transform)


def build(params: Categorize, seed: int) -> torch.nn.Module:
    """Return a small EVA-02 of random weights with four outputs: timm's with sub-LN, at other sizes."""
    check_widths("categorize", params.width)
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
    """Write `model.safetensors` and `config.json` (sizes, preprocessing, class names)."""
    config = {"label_names": classifier.labels}
    save_for_hf(classifier.model.cpu(), folder, model_config=config, safe_serialization=True)


def load(name: str | Path) -> Classifier:
    """Return a classifier by name.

    Args:
        name: a folder in timm's format (relative to the repository's root), or a timm model with ImageNet
            classes, fetched from the Hugging Face hub on first use.

    Raises:
        UserError: neither a folder nor a timm model, weights are missing, or the classes are not ImageNet's.
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
            raise UserError(
                f"categorize.model: {name!r} has {model.num_classes} outputs, which are no ImageNet classes",
                "choose a model fine-tuned on ImageNet-1k or 22k",
            )
        labels = ImageNetInfo(subset).label_names()
    return wrap(model, labels)

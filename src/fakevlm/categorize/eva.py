"""The classifier: an EVA-02 of timm and the four categories made of its classes.

EVA-02 (Fang et al. 2024, the paper's reference [12]) is a vision transformer with SwiGLU feed-forward blocks, rotary position
embeddings and a LayerNorm inside each block (sub-LN). A model is named in params.yaml, or, in the miniature, built small and
trained here; either way it is kept as timm's own `model.safetensors` and `config.json`, which `timm.create_model("local-dir:…")`
reads too.
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
from fakevlm.config.params import Categorize
from fakevlm.errors import UserError


@dataclass
class Classifier:
    """An EVA-02 with what its outputs mean.

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
        """Category probabilities of a batch of RGB images.

        Returns:
            (len(images), 4) float32, rows sum to one; columns as in `FOUR`. The classes' probabilities are summed within each
            category.
        """
        batch = torch.stack([self.transform(image) for image in images]).to(self.columns.device)
        return (self.model(batch).float().softmax(-1) @ self.columns).cpu().numpy()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wrap(model: torch.nn.Module, labels: Sequence[str]) -> Classifier:
    """A classifier of a timm model whose classes are `labels`; moved to the best device, in evaluation mode."""
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    where = device()
    columns = torch.from_numpy(membership(labels)).to(where)
    return Classifier(model.eval().to(where), list(labels), columns, transform)


def build(params: Categorize, seed: int) -> torch.nn.Module:
    """A small EVA-02 of random weights with four outputs: timm's base architecture (the one with sub-LN) at other sizes."""
    grid = params.image_size // params.patch_size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(
            "eva02_base_patch14_224",
            img_size=params.image_size,
            patch_size=params.patch_size,
            embed_dim=params.width,
            depth=params.depth,
            num_heads=params.heads,
            ref_feat_shape=(grid, grid),
            num_classes=len(FOUR),
        )
    side = params.image_size
    model.pretrained_cfg.update(
        input_size=(3, side, side), crop_pct=1.0, tag=None, label_names=list(FOUR), license=None
    )
    return model


def save(classifier: Classifier, folder: Path) -> None:
    """Writes `model.safetensors` and `config.json` (sizes, preprocessing, class names)."""
    model = classifier.model.cpu()
    save_for_hf(model, folder, model_config={"label_names": classifier.labels}, safe_serialization=True)


def load(name: str | Path) -> Classifier:
    """A classifier by name.

    Args:
        name: a folder written by `save` (or any of timm's safetensors + config.json; relative to the repository's root), or a
            timm model with ImageNet classes, such as `eva02_large_patch14_448.mim_m38m_ft_in22k_in1k`, fetched from the
            Hugging Face hub on first use.

    Raises:
        UserError: neither a folder nor a timm model, weights not to be had, or classes that are not ImageNet's.
    """
    folder = paths.resolve(name)
    where = f"local-dir:{folder}" if folder.is_dir() else str(name)
    try:
        model = timm.create_model(where, pretrained=True)
    except (
        Exception
    ) as error:  # timm, the hub and safetensors raise half a dozen kinds for one mistake: a wrong name
        raise UserError(
            f"categorize.model: {name!r} cannot be loaded ({type(error).__name__}: {error})",
            "name a folder with timm's model.safetensors and config.json, or a model that timm.list_pretrained('eva02*') lists",
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

"""Checkpoints of published detectors in their authors' layout, with weights made from the tensors' names.

`golden/detectors.json` holds names and shapes of each network's tensors, and what its authors' code,
run once, says about `IMAGES`. ResNet-50s have torchvision's names, as the authors' copies do.
"""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import resnet
from transformers import CLIPConfig, CLIPModel

GOLDEN = json.loads((Path(__file__).parent / "golden/detectors.json").read_text())
# A network's name in the golden file: its entry's kind, and the key under which its authors keep the tensors.
PUBLISHED = {
    "cnnspot": ("cnnspot", "model"),
    "gramnet2": ("gramnet", None),
    "gramnet1": ("gramnet", "netC"),
    "fusing": ("fusing", "model"),
    "lnp5": ("lnp", "model"),
    "lnp3": ("lnp", "model"),
}


def picture(width: int, height: int) -> Image.Image:
    """A coarse random pattern with grain: the same everywhere."""
    rng = np.random.default_rng([width, height])
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    pixels = coarse.repeat(8, 0).repeat(8, 1)[:height, :width] + rng.integers(-12, 13, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


IMAGES = [picture(*size) for size in ((150, 97), (64, 80), (301, 260))]


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the authors' network of a kind has them."""
    shapes = {name: tuple(shape) for name, shape in GOLDEN["tensors"].get(kind, {}).items()}
    if shapes and kind != "fusing":
        return shapes
    with torch.device("meta"):
        tensors = resnet.resnet50(num_classes=1000 if kind == "fusing" else 1).state_dict()
    prefix = "resnet." if kind == "fusing" else ""
    channels = {"conv1.weight": (64, 5, 7, 7)} if kind == "lnp5" else {}
    return shapes | {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in tensors.items()} | channels


def _tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(7)
    if leaf == "running_var":
        values = rng.uniform(0.75, 1.25, shape)
    elif leaf == "scale":
        values = np.array([1.7])
    elif len(shape) == 1 and leaf == "weight":  # a normalisation; small at a block's end
        values = rng.uniform(0.75, 1.25, shape) * (0.2 if "bn3" in name else 1.0)
    elif len(shape) == 1:
        values = rng.normal(0, 0.05, shape)
    else:
        values = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(values, np.float32))


@cache
def weights(kind: str) -> dict[str, torch.Tensor]:
    """The recipe's state dict of a kind of network."""
    tensors = {name: _tensor(name, shape) for name, shape in shapes(kind).items()}
    for name, tensor in tensors.items():
        if kind == "denoiser" and tensor.dim() == 1 and name.endswith("weight"):
            tensor.fill_(0.25)  # one activation under many names
        if kind == "denoiser" and name.endswith(("conv1x1.weight", "tail.0.weight")):
            tensor.mul_(0.05)  # so that the pattern is faint, as it is in photographs
        if kind.startswith("gramnet") and name.endswith("bn2.weight"):
            tensor.mul_(0.2)  # the last of a block here
        if kind == "gramnet2" and name in ("bn1.running_var", "conv_interi_0.1.running_var"):
            tensor.mul_(1e4)  # it sees 0–255
    return tensors


def checkpoint(file: Path, content: Any) -> str:
    torch.save(content, file)
    return str(file)


def denoiser(folder: Path) -> str:
    """`sidd_rgb.pth` as published: trained on several GPUs, beside the number of the epoch."""
    tensors = {f"module.{name}": tensor for name, tensor in weights("denoiser").items()}
    return checkpoint(folder / "sidd_rgb.pth", {"epoch": 60, "state_dict": tensors})


def tiny_clip(folder: Path) -> Path:
    """A CLIP of the real class with the real number of features, otherwise tiny."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 28, "patch_size": 14, "projection_dim": 768}
    config = CLIPConfig(text_config={**sizes, "vocab_size": 50}, vision_config=vision, projection_dim=768)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    return folder


def linear_layer(folder: Path) -> str:
    """`fc_weights.pth` as published: a bare linear layer on CLIP's 768 features."""
    weight = 0.3 * torch.randn(1, 768, generator=torch.Generator().manual_seed(1))
    return checkpoint(folder / "fc_weights.pth", {"weight": weight, "bias": torch.ones(1)})


def published(folder: Path) -> dict[str, dict[str, str]]:
    """A checkpoint a kind of detector: what its entry of `evaluate.experts` names."""
    files: dict[str, dict[str, str]] = {}
    for name, (kind, wrapper) in PUBLISHED.items():
        content = {wrapper: weights(name)} if wrapper else weights(name)
        files[kind] = {"weights": checkpoint(folder / f"{name}.pth", content)}
    files["lnp"]["features"] = denoiser(folder)
    files["univfd"] = {"weights": linear_layer(folder), "features": str(tiny_clip(folder / "clip"))}
    return files

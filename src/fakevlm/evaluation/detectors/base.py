"""Base of published detectors: batches of images, and checkpoints that are read without running code in them.

A checkpoint is read with `weights_only`: tensors and plain containers, no objects. It must hold exactly the
tensors of the authors' network, by name and shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.model.llava import device


class Detector(ABC):
    """A published detector. Most take images in their own sizes, so a batch is what shares a size.

    Attributes:
        pixels: most pixels of a batch, which holds one image at least; benchmarks have photographs of 24
            million.
    """

    pixels = 8_000_000

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return the part of an RGB image that the detector sees: all of it."""
        return image

    @abstractmethod
    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        """Return P(fake) of n prepared images of one size: (n,) float64, on any device."""

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return P(fake) of RGB images, any sizes: (len(images),) float64 in 0–1."""
        p_fake = np.zeros(len(images))
        prepared = [self.prepare(image) for image in images]
        sizes = pd.Series([image.size for image in prepared])
        for (width, height), rows in sizes.groupby(sizes, sort=False).indices.items():
            most = max(1, self.pixels // (width * height))
            for start in range(0, len(rows), most):
                batch = rows[start : start + most]
                values = self.p_fake([prepared[row] for row in batch])
                p_fake[batch] = values.double().reshape(len(batch)).cpu().numpy()
        return p_fake


def read_checkpoint(file: str, wrapper: str) -> dict[str, Tensor]:
    """Return the state dict of a published checkpoint: tensors by name.

    Args:
        file: relative ones are taken from the repository's root.
        wrapper: key under which the authors' training code keeps the state dict; a bare state dict will do.

    Raises:
        UserError: there is no such file, or it is no state dict.
    """
    path = paths.resolve(file)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files of other kinds
        raise UserError(
            f"{path} is no plain checkpoint: {str(error).splitlines()[0]}",
            "if it is a pickled network, open it with its authors' code and save `network.state_dict()`",
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(torch.is_tensor, content.values())):
        raise UserError(
            f"{path} holds no state dict, neither bare nor under {wrapper!r}",
            "name the checkpoint that the method's authors publish",
        )
    # Trained on several GPUs (`DataParallel`), every name begins with "module.".
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in content.items()
    }


def build(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], file: str) -> nn.Module:
    """Return a network with exactly these tensors, in evaluation mode, on the accelerator.

    Args:
        make: builds the network; its initial weights are never drawn.
        tensors: its state dict.
        file: where they come from, for errors.

    Raises:
        UserError: names or shapes are not the network's.
    """
    with torch.device("meta"):
        network = make()
    try:
        network.load_state_dict(dict(tensors), assign=True)
    except RuntimeError as error:
        problems = [shorten(line, 200) for line in str(error).splitlines()[1:6]]
        raise UserError(
            f"{file} does not hold the tensors of this kind of detector: {' '.join(problems)}",
            "check `kind` and `weights` of the entry in evaluate.experts",
        ) from error
    return network.requires_grad_(False).to(device()).eval()

"""Base of published detectors: batches of images, and checkpoints read without running code in them."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten

import numpy as np
import pandas as pd
import torch
from PIL import Image
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.evaluation.vision import IMAGENET, to_tensor
from fakevlm.model.llava import device


class Detector:
    """A published detector, made of its checkpoint. Most take images in their own sizes: a batch shares one.

    Attributes:
        network: gives the logit of fake.
        pixels: most pixels of a batch, which holds one image at least; benchmarks have photographs of 24
            million.
    """

    network: nn.Module
    pixels = 8_000_000

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return the part of an RGB image that the detector sees: all of it."""
        return image

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        """Return P(fake) of n prepared images of one size: n values in float64, on any device."""
        return self.network(to_tensor(images, IMAGENET)).double().sigmoid()

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
                p_fake[batch] = self.p_fake([prepared[row] for row in batch]).flatten().cpu().numpy()
        return p_fake


def resnet50(outputs: int, channels: int = 3) -> nn.Module:
    """Return a ResNet-50 with the tensor names of torchvision's, which several authors copied."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes=outputs, in_chans=channels)


def load_network(file: str, wrapper: str, make: Callable[[Mapping[str, Tensor]], nn.Module]) -> nn.Module:
    """Return a published network, in evaluation mode, on the accelerator.

    The checkpoint is read with `weights_only`: tensors and plain containers, no objects.

    Args:
        file: the checkpoint; relative ones are taken from the repository's root.
        wrapper: key under which the authors' training code keeps the state dict; a bare state dict will do.
        make: builds the network that these tensors are of; its initial weights are never drawn.

    Raises:
        UserError: there is no such file, it is no state dict, or its names or shapes are not the network's.
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
    tensors = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in content.items()
    }
    with torch.device("meta"):
        network = make(tensors)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        problems = [shorten(line, 200) for line in str(error).splitlines()[1:6]]
        raise UserError(
            f"{path} does not hold the tensors of this kind of detector: {' '.join(problems)}",
            "check `kind` and `weights` of the entry in evaluate.experts",
        ) from error
    return network.requires_grad_(False).to(device()).eval()

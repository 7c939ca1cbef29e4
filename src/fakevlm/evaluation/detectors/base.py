"""Base of published detectors: reading a checkpoint without running code in it, and images into tensors.

A checkpoint is read with `weights_only`: tensors and plain containers, no objects. It must hold exactly the
tensors of the authors' network, by name and shape; missing and additional ones are an error that lists them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.model.llava import device

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, standard deviation of RGB in 0–1
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_LISTED = 4  # names of tensors in an error


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
        alike: dict[tuple[int, int], list[int]] = {}
        prepared = [self.prepare(image) for image in images]
        for number, image in enumerate(prepared):
            alike.setdefault(image.size, []).append(number)
        for (width, height), numbers in alike.items():
            most = max(1, self.pixels // (width * height))
            for start in range(0, len(numbers), most):
                some = numbers[start : start + most]
                values = self.p_fake([prepared[number] for number in some])
                p_fake[some] = values.double().reshape(len(some)).cpu().numpy()
        return p_fake


def to_tensor(
    images: Sequence[Image.Image], statistics: tuple[tuple[float, ...], tuple[float, ...]]
) -> Tensor:
    """Return RGB images of one size as a normalised tensor (n, 3, h, w) on the accelerator.

    Args:
        images: n of them.
        statistics: mean and standard deviation, such as `IMAGENET`.
    """
    return TF.normalize(torch.stack([TF.to_tensor(image) for image in images]).to(device()), *statistics)


def read_checkpoint(file: str, wrapper: str) -> dict[str, Tensor]:
    """Return the state dict of a published checkpoint: tensors by name.

    Args:
        file: relative ones are taken from the repository's root.
        wrapper: key under which the authors' training code keeps the state dict; a bare state dict will do.

    Raises:
        UserError: there is no such file, or it is no state dict.
    """
    path = paths.resolve(file)
    if not path.is_file():
        raise UserError(
            f"no file {path}", "get it from its authors, or correct the entry in evaluate.experts"
        )
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
    bare = all(name.startswith("module.") for name in content)
    return {
        name.removeprefix("module.") if bare else name: tensor.float()
        if tensor.is_floating_point()
        else tensor
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
    expected = network.state_dict()
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
            for name in expected
            if name in tensors and tensors[name].shape != expected[name].shape
        ],
    }
    wrong = [f"{len(names)} {what} ({_some(names)})" for what, names in problems.items() if names]
    if wrong:
        raise UserError(
            f"{file} does not hold the tensors of this kind of detector: {', '.join(wrong)}",
            "check `kind` and `weights` of the entry in evaluate.experts",
        )
    network.load_state_dict(dict(tensors), assign=True)
    return network.requires_grad_(False).to(device()).eval()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")

"""What published detectors share: reading a checkpoint without running what is in it, and images into tensors.

A checkpoint is read with `weights_only`: tensors and plain containers, no objects. It must hold exactly the tensors that the
authors' network has, by name and shape; what is missing or too much is an error that lists it, never a partly random network.
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
        pixels: most of a batch (of one image at least): memory grows with them, and benchmarks hold photographs of 24 million.
    """

    pixels = 8_000_000

    def prepare(self, image: Image.Image) -> Image.Image:
        """What is looked at of an RGB image: here, all of it."""
        return image

    @abstractmethod
    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        """P(fake) of n prepared images of one size: (n,) float64, on whatever device."""

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """P(fake) of RGB images, any sizes: (len(images),) float64 in 0–1."""
        found = np.zeros(len(images))
        alike: dict[tuple[int, int], list[int]] = {}
        prepared = [self.prepare(image) for image in images]
        for number, image in enumerate(prepared):
            alike.setdefault(image.size, []).append(number)
        for (width, height), numbers in alike.items():
            most = max(1, self.pixels // (width * height))
            for start in range(0, len(numbers), most):
                some = numbers[start : start + most]
                values = self.p_fake([prepared[number] for number in some])
                found[some] = values.double().reshape(len(some)).cpu().numpy()
        return found


def to_tensor(
    images: Sequence[Image.Image], statistics: tuple[tuple[float, ...], tuple[float, ...]]
) -> Tensor:
    """RGB images of one size as a normalised tensor (n, 3, h, w) on the accelerator.

    Args:
        images: n of them.
        statistics: mean and standard deviation, such as `IMAGENET`.
    """
    return TF.normalize(torch.stack([TF.to_tensor(image) for image in images]).to(device()), *statistics)


def read_checkpoint(file: str, wrapper: str) -> dict[str, Tensor]:
    """The state dict of a published checkpoint: tensors by name.

    Args:
        file: relative ones are taken from the repository's root.
        wrapper: key under which the authors' training code keeps the state dict (beside the optimizer's); a bare one will do.

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
    except (
        Exception
    ) as error:  # torch raises a kind of its own for each way in which a file may be something else
        raise UserError(
            f"{path} is no plain checkpoint: {str(error).splitlines()[0]}",
            "if it is a pickled network, open it once where its authors' code is, and save `network.state_dict()` instead",
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
    """A network with these tensors and no others, in evaluation mode, on the accelerator.

    Args:
        make: builds the network; its initial weights are never drawn.
        tensors: its state dict.
        file: where they come from, for errors.

    Raises:
        UserError: names or shapes are not the network's.
    """
    with torch.device("meta"):
        network = make()
    own = network.state_dict()
    problems = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ],
    }
    said = [f"{len(names)} {what} ({_some(names)})" for what, names in problems.items() if names]
    if said:
        raise UserError(
            f"{file} does not hold the tensors of this kind of detector: {', '.join(said)}",
            "check `kind` and `weights` of the entry in evaluate.experts",
        )
    network.load_state_dict(dict(tensors), assign=True)
    return network.requires_grad_(False).to(device()).eval()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")

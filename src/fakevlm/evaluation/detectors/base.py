"""Published detectors: checkpoints read without running code in them, batches, and CNNSpot and UnivFD."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten

import numpy as np
import pandas as pd
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.evaluation.experts import CLIP, IMAGENET, load_clip, to_tensor
from fakevlm.model.weights import check_numbers, device


class Detector:
    """A published detector, made of its checkpoint. Most take images in their own sizes; a batch has one."""

    network: nn.Module  # gives the logit of fake
    pixels = 8_000_000  # most of a batch, which holds one image at least: some have 24 million

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

    The checkpoint is read with `weights_only`: tensors and plain containers, no objects. Its state dict is
    bare or, as the authors' training code keeps it, under the key `wrapper`. `make` builds the network that
    these tensors are of; its initial weights are never drawn.

    Raises a UserError where there is no such file, it is no state dict, or not the network's.
    """
    path = paths.resolve(file)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files of other kinds
        cure = "if it is a pickled network, open it with its authors' code and save `network.state_dict()`"
        raise UserError(f"{path} is no plain checkpoint: {str(error).splitlines()[0]}", cure) from error
    if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(torch.is_tensor, content.values())):
        cure = "name the checkpoint that the method's authors publish"
        raise UserError(f"{path} holds no state dict, neither bare nor under {wrapper!r}", cure)
    # Trained on several GPUs (`DataParallel`), every name begins with "module.".
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    tensors = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    with torch.device("meta"):
        network = make(tensors)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        problems = [shorten(line, 200) for line in str(error).splitlines()[1:6]]
        what = f"{path} does not hold the tensors of this kind of detector: {' '.join(problems)}"
        raise UserError(what, "check `kind` and `weights` of the entry in evaluate.experts") from error
    check_numbers(path, tensors)
    return network.requires_grad_(False).to(device(), torch.float32).eval()


class PublishedCNNSpot(Detector):
    """CNNSpot (Wang et al., CVPR 2020, "CNN-generated images are surprisingly easy to spot… for now").

    After github.com/PeterWang512/CNNDetection (`networks/resnet.py`, `demo.py`): a ResNet-50; checkpoints
    `blur_jpg_prob0.1.pth` and `blur_jpg_prob0.5.pth`. The image is taken whole, neither resized nor cropped,
    as in `demo.py` (their README: better on most categories than the paper's centre crop of 224 pixels).
    """

    def __init__(self, weights: str) -> None:
        self.network = load_network(weights, "model", lambda _: resnet50(1))


class PublishedUnivFD(Detector):
    """UnivFD (Ojha et al., CVPR 2023, "Towards Universal Fake Image Detectors that Generalize …").

    After github.com/WisconsinAIVision/UniversalFakeDetect (`models/clip_models.py`, `validate.py`): one
    linear layer on the image features of OpenAI's CLIP ViT-L/14 (768 numbers, projected, not normalised).
    `pretrained_weights/fc_weights.pth` is its bare state dict; `features` names the CLIP. The image is the
    unresized centre of CLIP's size (224 pixels; smaller images get a black border).
    """

    def __init__(self, weights: str, features: str) -> None:
        self.clip = load_clip(features)
        width = self.clip.config.projection_dim
        self.network = load_network(weights, "model", lambda _: nn.Linear(width, 1))

    def prepare(self, image: Image.Image) -> Image.Image:
        return TF.center_crop(image, 2 * [self.clip.config.image_size])

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        features = self.clip(pixel_values=to_tensor(images, CLIP)).image_embeds
        return self.network(features).double().sigmoid()

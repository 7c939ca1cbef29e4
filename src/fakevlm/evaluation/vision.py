"""What detectors share: images as normalised tensors, and frozen vision models of CLIP."""

from collections.abc import Sequence

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

from fakevlm.model.llava import load_config
from fakevlm.model.weights import device, load_weights

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of RGB in 0–1
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def to_tensor(images: Sequence[Image.Image | np.ndarray], statistics: Statistics) -> Tensor:
    """Return RGB images (h, w, 3) uint8 of one size, normalised: (n, 3, h, w) on the accelerator."""
    tensors = [TF.to_tensor(np.array(image, order="C")) for image in images]
    return TF.normalize(torch.stack(tensors).to(device()), *statistics)


def load_clip(name: str, tower: bool = False) -> nn.Module:
    """Return a frozen CLIP vision model, in evaluation mode, on the accelerator.

    `name` is a folder or on the hub: with `tower` a LLaVA, of which only the vision tower is loaded, else a
    CLIP, whose vision model comes with the projection, in float32. Raises a UserError as `load_weights` does.
    """
    kind, options = CLIPVisionModelWithProjection, {"dtype": "float32"}
    if tower:
        names = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
        kind, options = CLIPVisionModel, {"config": load_config(name).vision_config, "key_mapping": names}
    return load_weights(kind, name, whole=False, **options).requires_grad_(False).to(device())

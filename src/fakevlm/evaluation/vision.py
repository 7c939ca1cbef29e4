"""What detectors share: images as normalised tensors, and frozen vision models of CLIP."""

from collections.abc import Sequence

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.utils import logging

from fakevlm.errors import UserError
from fakevlm.model.llava import device, locate

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of RGB in 0–1
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def to_tensor(images: Sequence[Image.Image | np.ndarray], statistics: Statistics) -> Tensor:
    """Return RGB images (h, w, 3) uint8 of one size, normalised: (n, 3, h, w) on the accelerator."""
    tensors = [TF.to_tensor(np.array(image, order="C")) for image in images]
    return TF.normalize(torch.stack(tensors).to(device()), *statistics)


def load_clip(name: str, tower: bool = False) -> nn.Module:
    """Return a frozen CLIP vision model, in evaluation mode, on the accelerator.

    Args:
        name: a folder in Hugging Face format, or a name on the hub.
        tower: whether `name` is a LLaVA, of which only the vision tower is loaded; else it is a CLIP, whose
            vision model comes with the projection, in float32.

    Raises:
        UserError: there is none, or it lacks weights.
    """
    what, cure = "CLIP", "set `features` to openai/clip-vit-large-patch14 or a copy"
    if tower:
        what, cure = "vision tower", "set `base` to a LLaVA-1.5"
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list every weight of the text half as unexpected
    try:
        kind, options = CLIPVisionModelWithProjection, {"dtype": "float32"}
        if tower:
            names = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
            config = AutoConfig.from_pretrained(locate(name), trust_remote_code=False).vision_config
            kind, options = CLIPVisionModel, {"config": config, "key_mapping": names}
        model, report = kind.from_pretrained(locate(name), output_loading_info=True, **options)
        if missing := report["missing_keys"]:
            raise ValueError(f"{len(missing)} weights are missing")
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"no {what} could be loaded from {name!r}: {error}", cure) from error
    finally:
        logging.set_verbosity(level)
    return model.requires_grad_(False).to(device()).eval()

"""UnivFD (Ojha et al., CVPR 2023, "Towards Universal Fake Image Detectors that Generalize …").

After github.com/WisconsinAIVision/UniversalFakeDetect (`models/clip_models.py`, `validate.py`): one linear
layer on the image features of OpenAI's CLIP ViT-L/14 (768 numbers, projected, not normalised), the logit of
fake. `pretrained_weights/fc_weights.pth` is the layer's bare state dict: `weight` (1, 768), `bias` (1). The
image is the unresized centre of CLIP's size (224 pixels; smaller images get a black border), with CLIP's mean
and deviation.
"""

from collections.abc import Sequence

import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn

from fakevlm.errors import UserError
from fakevlm.evaluation.detectors.base import CLIP, Detector, build, read_checkpoint, to_tensor
from fakevlm.model.llava import device, locate


def load_clip(name: str) -> nn.Module:
    """Return the image half of a CLIP with its projection, in float32 as the authors use it.

    Args:
        name: a folder in Hugging Face format, or a name on the hub (`openai/clip-vit-large-patch14`).

    Raises:
        UserError: there is none, or it lacks weights.
    """
    from transformers import CLIPVisionModelWithProjection
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would list every weight of the text half as unexpected
    try:
        model, loading = CLIPVisionModelWithProjection.from_pretrained(
            locate(name), dtype="float32", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no CLIP could be loaded from {name!r}: {error}",
            "set `features` to a folder with CLIP ViT-L/14, or to openai/clip-vit-large-patch14",
        ) from error
    finally:
        logging.set_verbosity(level)
    if missing := loading["missing_keys"]:
        raise UserError(
            f"{name!r} lacks {len(missing)} weights of a CLIP with projection",
            "set `features` to openai/clip-vit-large-patch14 or a copy of it",
        )
    return model.requires_grad_(False).to(device()).eval()


class PublishedUnivFD(Detector):
    """The published linear layer on a frozen CLIP.

    Args:
        weights: the checkpoint.
        features: the CLIP.
    """

    def __init__(self, weights: str, features: str) -> None:
        tensors = read_checkpoint(weights, "model")
        self.clip = load_clip(features)
        self.size = self.clip.config.image_size
        self.layer = build(lambda: nn.Linear(self.clip.config.projection_dim, 1), tensors, weights)

    def prepare(self, image: Image.Image) -> Image.Image:
        return TF.center_crop(image, [self.size, self.size])

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        return self.layer(self.clip(pixel_values=to_tensor(images, CLIP)).image_embeds).double().sigmoid()

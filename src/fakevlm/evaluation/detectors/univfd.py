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

from fakevlm.evaluation.detectors.base import Detector, build, read_checkpoint
from fakevlm.evaluation.vision import CLIP, load_clip, to_tensor


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

"""CNNSpot and UnivFD: the published detectors that are one network and its logit."""

from collections.abc import Sequence

import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn

from fakevlm.evaluation.detectors.base import Detector, load_network, resnet50
from fakevlm.evaluation.vision import CLIP, load_clip, to_tensor


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

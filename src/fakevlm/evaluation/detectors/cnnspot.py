"""CNNSpot (Wang et al., CVPR 2020, "CNN-generated images are surprisingly easy to spot… for now").

After github.com/PeterWang512/CNNDetection (`networks/resnet.py`, `demo.py`): a ResNet-50 with one output, the
logit of fake; checkpoints `blur_jpg_prob0.1.pth` and `blur_jpg_prob0.5.pth` keep its state dict under
`model`. The image is taken whole, neither resized nor cropped, as in `demo.py` (their README: better on most
categories than the paper's centre crop of 224 pixels).
"""

from collections.abc import Sequence

from PIL import Image
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from fakevlm.evaluation.detectors.base import Detector, build, read_checkpoint
from fakevlm.evaluation.vision import IMAGENET, to_tensor


def resnet50(outputs: int, channels: int = 3) -> nn.Module:
    """Return a ResNet-50 with the tensor names of torchvision's, which the authors copied."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes=outputs, in_chans=channels)


class PublishedCNNSpot(Detector):
    """The published ResNet-50.

    Args:
        weights: the checkpoint.
    """

    def __init__(self, weights: str) -> None:
        self.network = build(lambda: resnet50(1), read_checkpoint(weights, "model"), weights)

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        return self.network(to_tensor(images, IMAGENET)).double().sigmoid()

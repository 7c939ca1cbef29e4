"""Gram-Net (Liu et al., CVPR 2020, "Global Texture Enhancement for Fake Face Detection in the Wild").

A ResNet-18 with six branches for texture: each takes the features of one depth (from the image itself to
layer 3), forms the Gram matrix of 32 channels and reduces it to 32 numbers. The last layer distinguishes two
published forms:

* the authors' (github.com/liuzhengzhe/Global_Texture_Enhancement_for_Fake_Face_Detection_in_the-Wild,
  `resnet18_gram.py`, `demo.py`): two outputs, 0 fake and 1 real. The image is resized to 512 × 512 pixels
  (bilinear), BGR, 0–255. Their files (`stylegan-ffhq.pth`, …) are pickled networks: not opened here;
* AIGCDetectBenchmark's (github.com/Ekko-zn/AIGCDetectBenchmark, `networks/resnet_gram.py`, trained on
  CNNSpot's images), under `netC`: one output, the logit of fake. The image is taken whole.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from fakevlm.evaluation.detectors.base import Detector, load_network
from fakevlm.model.weights import device

SIZE = 512  # pixels a side, of the authors' form
# A branch: its name in the published tensors, the channels it gets, the names of its two reducing layers.
BRANCHES = (
    ("interi", 3, "gi_fc1", "gi_fc2"),
    ("inter0", 64, "g0_fc1", "g0_fc2"),
    ("inter1", 64, "g_fc1r", "g_fc2r"),
    ("inter2", 64, "g2_fc1", "g2_fc2"),
    ("inter3", 128, "g3_fc1", "g3_fc2"),
    ("inter4", 256, "g4_fc1", "g4_fc2"),
)


def gram(features: Tensor) -> Tensor:
    """Return Gram matrices of features (n, c, h, w), divided by c·h·w: (n, 1, c, c)."""
    n, channels, height, width = features.shape
    flat = features.reshape(n, channels, height * width)
    return (flat @ flat.mT / (channels * height * width))[:, None]


def _reduce(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class GramResNet(ResNet):
    """The network, with the published tensors' names and 2 outputs (the authors') or 1."""

    def __init__(self, outputs: int) -> None:
        super().__init__(BasicBlock, (2, 2, 2, 2), num_classes=0)
        self.scale = nn.ParameterDict({"scale": torch.ones(1)})  # one factor for all branches
        first = nn.Linear(512 + 32 * len(BRANCHES), 512)
        self.fcnewr = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, outputs))
        for name, channels, first, second in BRANCHES:
            setattr(self, f"conv_{name}_0", _reduce(channels, 32, 1))
            setattr(self, first, _reduce(1, 16, 2))
            setattr(self, second, _reduce(16, 32, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (n, 3, h, w) → (n, outputs)."""
        early = self.act1(self.bn1(self.conv1(x)))
        depths = [x, early, self.maxpool(early)]
        for layer in (self.layer1, self.layer2, self.layer3):
            depths.append(layer(depths[-1]))
        parts = [self.layer4(depths[-1]).mean((2, 3))]
        for (name, _, first, second), features in zip(BRANCHES, depths, strict=True):
            texture = gram(getattr(self, f"conv_{name}_0")(features))
            texture = getattr(self, second)(getattr(self, first)(texture))
            parts.append(texture.mean((2, 3)) * self.scale["scale"])
        return self.fcnewr(torch.cat(parts, 1))


class GramNet(Detector):
    """The published network, in either form."""

    def __init__(self, weights: str) -> None:
        self.network = load_network(weights, "netC", self._make)

    def _make(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        last = tensors.get("fcnewr.3.weight")
        self.outputs = 1 if last is not None and len(last) == 1 else 2
        return GramResNet(self.outputs)

    def prepare(self, image: Image.Image) -> Image.Image:
        return image if self.outputs == 1 else Image.fromarray(cv2.resize(np.asarray(image), (SIZE, SIZE)))

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        if self.outputs == 1:
            return super().p_fake(images)
        pixels = np.stack([np.asarray(image)[..., ::-1] for image in images]).astype(np.float32)
        logits = self.network(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device()))
        return logits.double().softmax(1)[:, 0]

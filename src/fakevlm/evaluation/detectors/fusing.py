"""Fusing (Ju et al., ICIP 2022, "Fusing Global and Local Features for … AI-Synthesized Image Detection").

After github.com/littlejuyan/FusingGlobalandLocal (`networks/trainer.py`, `networks/resnet.py`,
`data/dataset_train.py`): a ResNet-50 sees the whole image; where its last features are strongest, three
windows of 224 and three of 112 pixels are cut from the unresized image; three layers of self-attention fuse
the seven embeddings. `model_epoch_best.pth` also holds the unused head of the ResNet (1,000 classes).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn

from fakevlm.evaluation.detectors.base import Detector, load_network, resnet50
from fakevlm.evaluation.experts import IMAGENET, to_tensor

SIZE, WIDTH, HEADS, LAYERS = 224, 128, 4, 3
WINDOWS = ((3, 224), (2, 112))  # cells of the feature map that are averaged, side of the window in pixels
EACH = 3  # windows of a size


def windows(features: Tensor, height: int, width: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of six windows of an image of height × width pixels.

    `features` (c, s, s) are those of its centre square, not negative.
    """
    sides, side = features.shape[-1], min(height, width)
    boxes = []
    for kernel, size in WINDOWS:
        scores = F.avg_pool2d(features[None], kernel, stride=1).sum(1, keepdim=True)
        cells = scores.shape[-1]
        for _ in range(EACH):
            box = []
            for cell, length in zip(divmod(int(scores.argmax()), cells), (height, width), strict=True):
                # The pixel at which the window is centred, in float32 as in the authors' code.
                share = np.float32(2 * cell + sides - cells + 1) / np.float32(2 * sides)
                centre = int(np.float32((length - side) // 2) + np.float32(side) * share)
                start = max(0, centre - size // 2)
                # What reaches over the image's end is moved into it.
                box.append(slice(max(0, start - max(0, start + size - length)), min(start + size, length)))
            boxes.append(tuple(box))
            # The strongest cell hides its neighbours from the next window.
            scores = scores * (F.max_pool2d(scores, 3, stride=1, padding=1) != scores.max())
    return boxes


class _Attention(nn.Module):
    """Self-attention over embeddings (n, 7, WIDTH) with residual connections and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(WIDTH, HEADS)
        self.ln1 = nn.LayerNorm(WIDTH)
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.fc2 = nn.Linear(WIDTH, WIDTH)
        self.ln2 = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        x = self.ln1(x + self.mha(x, x, x)[0])
        return self.ln2(x + self.fc2(F.relu(self.fc1(x)))).transpose(0, 1)


class FusingNetwork(nn.Module):
    """The network, with the published tensors' names."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = resnet50(1000)
        self.mha_list = nn.Sequential(*(_Attention() for _ in range(LAYERS)))
        self.fc1 = nn.Linear(2048, WIDTH)
        self.fc = nn.Linear(WIDTH, 1)

    def _embed(self, features: Tensor) -> Tensor:
        return F.relu(self.fc1(features.mean((2, 3))))

    def forward(self, image: Tensor, square: Tensor) -> Tensor:
        """Return logits of fake (n, 1) of unresized images (n, 3, h, w), centres (n, 3, SIZE, SIZE)."""
        features = self.resnet.forward_features(square)
        parts = [
            F.interpolate(image[n : n + 1, :, *box], (SIZE, SIZE), mode="bilinear", align_corners=True)
            for n in range(len(image))
            for box in windows(features[n], *image.shape[-2:])
        ]
        closer = self._embed(self.resnet.forward_features(torch.cat(parts))).unflatten(0, (len(image), -1))
        embeddings = torch.cat([closer, self._embed(features)[:, None]], 1)
        return self.fc(self.mha_list(embeddings)[:, -1])


class Fusing(Detector):
    """The published network."""

    def __init__(self, weights: str) -> None:
        self.network = load_network(weights, "model", lambda _: FusingNetwork())

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        squares = [TF.center_crop(TF.resize(image, SIZE), [SIZE, SIZE]) for image in images]
        return self.network(to_tensor(images, IMAGENET), to_tensor(squares, IMAGENET)).double().sigmoid()

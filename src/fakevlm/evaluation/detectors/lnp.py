"""LNP (Liu et al., ECCV 2022, "Detecting Generated Images by Real Images"): a ResNet-50 on learnt noise.

After github.com/Tangsenghenshou/Detecting-Generated-Images-by-Real-Images (`denoising_rgb.py`,
`test_sidd_rgb.py`, `resnet.py`) and github.com/Ekko-zn/AIGCDetectBenchmark (`data/process.py`). The pattern
is the noise that CycleISP's denoiser (`sidd_rgb.pth`) removes, cut to 0–1. The authors' scripts write it to
disk in eight bits, times 255 (which wraps around: 1 becomes 255, 2 becomes 254) and with red and blue
exchanged; so does this, because the classifier was trained on such files. The authors' takes five channels
(the pattern, and the grey amplitude and phase of its spectrum), AIGCDetectBenchmark's the pattern alone.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor, nn

from fakevlm.evaluation.detectors.base import Detector, load_network, resnet50
from fakevlm.evaluation.experts import IMAGENET, to_tensor
from fakevlm.model.weights import device

CHANNELS, REDUCTION, GROUPS, BLOCKS = 64, 16, 4, 8
GREY = (0.11, 0.59, 0.3)  # weights of the pattern's channels, which stand in the order BGR


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class _DualAttention(nn.Module):
    """Two convolutions, weighted by place (SA) and by channel (CA), with a residual connection."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 3, padding=1, bias=False)})
        inner = CHANNELS // REDUCTION
        squeeze, widen = nn.Conv2d(CHANNELS, inner, 1), nn.Conv2d(inner, CHANNELS, 1)
        conv_du = nn.Sequential(squeeze, nn.ReLU(), widen, nn.Sigmoid())
        self.SA, self.CA = nn.ModuleDict({"spatial": spatial}), nn.ModuleDict({"conv_du": conv_du})
        self.body = nn.Sequential(_conv(CHANNELS, CHANNELS), activation, _conv(CHANNELS, CHANNELS))
        self.conv1x1 = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        extremes = torch.cat([features.amax(1, keepdim=True), features.mean(1, keepdim=True)], 1)
        by_place = features * self.SA["spatial"]["conv"](extremes).sigmoid()
        by_channel = features * self.CA["conv_du"](features.mean((2, 3), keepdim=True))
        return x + self.conv1x1(torch.cat([by_place, by_channel], 1))


class _Group(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        blocks = [_DualAttention(activation) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*blocks, _conv(CHANNELS, CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def make_denoiser() -> nn.Module:
    """Return CycleISP's denoiser (Zamir et al., CVPR 2020): images (n, 3, h, w) in 0–1 → negative noise."""
    activation = nn.PReLU(CHANNELS)  # one for all layers, as published: its tensor appears under many names
    groups = [_Group(activation) for _ in range(GROUPS)]
    parts = {
        "head": nn.Sequential(_conv(3, CHANNELS)),
        "body": nn.Sequential(*groups, _conv(CHANNELS, CHANNELS), activation),
        "tail": nn.Sequential(_conv(CHANNELS, 3)),
    }
    return nn.Sequential(OrderedDict(parts))


def patterns(denoiser: nn.Module, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the noise patterns of RGB images of one size, as the authors' scripts write them to disk."""
    noise = -denoiser(torch.stack([TF.to_tensor(image) for image in images]).to(device())).clamp(-1, 0)
    levels = np.rint(noise.cpu().numpy() * 255).astype(np.uint8)
    wrapped = (levels * np.uint8(255)).transpose(0, 2, 3, 1)  # modulo 256
    return [Image.fromarray(np.ascontiguousarray(one[..., ::-1])) for one in wrapped]


def with_spectrum(x: Tensor) -> Tensor:
    """Return patterns (n, 3, h, w) with the grey amplitude (to the power .8) and phase of the spectrum."""
    spectrum = torch.fft.fftn(x, dim=(2, 3), norm="ortho")
    amplitude = (spectrum.abs() + 1e-8) ** 0.8
    phase = torch.atan2(spectrum.imag + 1e-8, spectrum.real + 1e-8)
    weights = torch.tensor(GREY, device=x.device)[:, None, None]
    grey = [(part * weights).sum(1, keepdim=True) for part in (amplitude, phase)]
    return torch.cat([x, *(torch.fft.ifftshift(part, dim=(2, 3)) for part in grey)], 1)


class LNP(Detector):
    """The published classifier on the pattern, in either form; `features` names the denoiser's checkpoint."""

    def __init__(self, weights: str, features: str) -> None:
        self.denoiser = load_network(features, "state_dict", lambda _: make_denoiser())
        self.network = load_network(weights, "model", self._make)

    def _make(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        first = tensors.get("conv1.weight")
        self.channels = 3 if first is not None and first.dim() == 4 and first.shape[1] == 3 else 5
        return resnet50(1, self.channels)

    def p_fake(self, images: Sequence[Image.Image]) -> Tensor:
        x = to_tensor(patterns(self.denoiser, images), IMAGENET)
        return self.network(with_spectrum(x) if self.channels == 5 else x).double().sigmoid()

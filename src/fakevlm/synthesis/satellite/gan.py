"""Satellite images by pix2pix (Isola et al., CVPR 2017), from a map to an aerial image.

A U-Net generator and a PatchGAN discriminator, L1 plus adversarial loss. Unlike in the published model, the
generator's noise is an input channel, not dropout, so that an image depends on its own random numbers only.
"""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fakevlm.config.base import check_widths
from fakevlm.synthesis.satellite.learning import device, seeded, set_rate

NAME = "pix2pix"
_WIDEST = 8  # times the width of the first layer, as in pix2pix


@dataclass(frozen=True)
class Shape:
    """A generator's sizes: channels of the first layer, and how often the image is halved."""

    width: int
    depth: int


def _widths(shape: Shape) -> list[int]:
    return [shape.width * min(2**level, _WIDEST) for level in range(shape.depth + 1)]


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


class Generator(nn.Module):
    """The U-Net: (n, 3, h, w) maps and (n, 1, h, w) noise → (n, 3, h, w) images in −1..1.

    h and w are multiples of 2 ** depth.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths = _widths(shape)
        check_widths(NAME, *widths)
        self.head = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(a, b, 4, 2, 1), _norm(b)) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(
            # Enlarging and a plain convolution instead of a transposed one, which leaves checkerboards.
            nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1), _norm(a))
            for a, b in pairwise(widths)
        )
        self.join = nn.ModuleList(nn.Conv2d(2 * a, a, 3, padding=1) for a in widths[:-1])
        self.tail = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(widths[0], 3, 3, padding=1), nn.Tanh())

    def forward(self, maps: Tensor, noise: Tensor) -> Tensor:
        x = self.head(torch.cat([maps, noise], 1))
        kept = []
        for layer in self.down:
            kept.append(x)
            x = layer(x)
        for level in reversed(range(len(kept))):
            x = self.join[level](torch.cat([self.up[level](x), kept[level]], 1))
        return self.tail(x)


class Discriminator(nn.Module):
    """The PatchGAN: for every patch of (map, image) a logit that the image is real."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1), _norm(2 * width), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1), _norm(4 * width), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )  # fmt: skip

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        return self.layers(torch.cat([maps, images], 1))


class Pix2Pix:
    """The GAN in training (see `learning.Learner`)."""

    def __init__(self, shape: Shape, *, learning_rate: float, l1_weight: float, seed: int) -> None:
        with seeded(seed):
            generator, discriminator = Generator(shape), Discriminator(shape.width)
        self._shape, self._rate, self._l1 = shape, learning_rate, l1_weight
        self.modules = {
            name: module.to(device(), memory_format=torch.channels_last)
            for name, module in (("generator", generator), ("discriminator", discriminator))
        }
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), learning_rate, betas=(0.5, 0.999))
            for name, module in self.modules.items()
        }

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def step(self, images: Tensor, maps: Tensor, generator: torch.Generator, done: float) -> float:
        """Update discriminator and generator once; return the L1 distance to the real images.

        The learning rate falls to zero over the second half, as in pix2pix.
        """
        for optimizer in self.optimizers.values():
            set_rate(optimizer, self._rate * min(1.0, 2 * (1 - done)))
        made = self.modules["generator"](maps, _noise(maps, generator))
        judge = self.modules["discriminator"]
        real, fake = judge(maps, images), judge(maps, made.detach())
        self._update("discriminator", (_told(real, 1.0) + _told(fake, 0.0)) / 2)
        judge.requires_grad_(False)
        distance = F.l1_loss(made, images)
        self._update("generator", _told(judge(maps, made), 1.0) + self._l1 * distance)
        judge.requires_grad_(True)
        return distance.item()

    def save(self, folder: Path) -> None:
        """Writes the generator: `config.json` and `model.safetensors`."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(
            json.dumps(asdict(self._shape), indent=2) + "\n", encoding="utf-8"
        )
        weights = self.modules["generator"].state_dict()
        save_file({k: v.contiguous().cpu() for k, v in weights.items()}, folder / "model.safetensors")


def _told(logits: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth))


def _noise(maps: Tensor, generator: torch.Generator) -> Tensor:
    n, _, h, w = maps.shape
    return torch.randn(n, 1, h, w, generator=generator, device=maps.device)


class Sampler:
    """A finished generator, ready to sample."""

    def __init__(self, folder: Path) -> None:
        """Loads what `Pix2Pix.save` wrote."""
        model = Generator(Shape(**json.loads((folder / "config.json").read_text(encoding="utf-8"))))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        self._model = model.to(device(), memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, maps: Tensor, seeds: list[int]) -> Tensor:
        """Images (n, 3, h, w) in −1..1 after as many maps; image i depends on map i and seed i."""
        noise = [
            _noise(one[None], torch.Generator(one.device).manual_seed(s))
            for one, s in zip(maps, seeds, strict=True)
        ]
        return self._model(maps, torch.cat(noise))

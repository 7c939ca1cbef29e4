"""Satellite images by pix2pix (Isola et al., CVPR 2017), from a map to an aerial image.

A U-Net generator and a PatchGAN discriminator, L1 plus adversarial loss. Unlike in the published model, the
generator's noise is an input channel, not dropout, so that an image depends on its own random numbers only.
"""

from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from fakevlm.config.params import GAN
from fakevlm.synthesis.satellite.learning import Learner, device, seeded_noise

_WIDEST = 8  # times the width of the first layer, as in pix2pix


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


class Generator(nn.Module, PyTorchModelHubMixin):
    """The U-Net: (n, 3, h, w) maps and (n, 1, h, w) noise → (n, 3, h, w) images in −1..1.

    The first layer has `width` channels; h and w, multiples of 2 ** `depth`, are halved `depth` times.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * min(2**level, _WIDEST) for level in range(depth + 1)]
        self.head = nn.Conv2d(4, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(a, b, 4, 2, 1), _norm(b)) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(
            # Enlarging and a plain convolution instead of a transposed one, which leaves checkerboards.
            nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1), _norm(a))
            for a, b in pairwise(widths)
        )
        self.join = nn.ModuleList(nn.Conv2d(2 * a, a, 3, padding=1) for a in widths[:-1])
        self.tail = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())

    def forward(self, maps: Tensor, noise: Tensor) -> Tensor:
        x = self.head(torch.cat([maps, noise], 1))
        skips = []
        for layer in self.down:
            skips.append(x)
            x = layer(x)
        for level in reversed(range(len(skips))):
            x = self.join[level](torch.cat([self.up[level](x), skips[level]], 1))
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


class Pix2Pix(Learner):
    """Generator and discriminator."""

    def __init__(self, settings: GAN, seed: int) -> None:
        self.settings, self.networks = settings, {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.networks["generator"] = Generator(settings.width, settings.depth)
            self.networks["discriminator"] = Discriminator(settings.width)
        for network in self.networks.values():
            network.to(device(), memory_format=torch.channels_last)

    @cached_property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rate, betas = self.settings.learning_rate, (0.5, 0.999)
        return {k: torch.optim.Adam(v.parameters(), rate, betas=betas) for k, v in self.networks.items()}

    def step(self, images: Tensor, maps: Tensor, generator: torch.Generator, done: float) -> float:
        """Update discriminator and generator once; return the L1 distance to the real images."""
        rate = self.settings.learning_rate * min(1.0, 2 * (1 - done))  # falls over the second half
        n, _, h, w = maps.shape
        random = torch.randn(n, 1, h, w, generator=generator, device=maps.device)
        fakes = self.networks["generator"](maps, random)
        discriminator = self.networks["discriminator"]
        on_real, on_fake = discriminator(maps, images), discriminator(maps, fakes.detach())
        self.update("discriminator", (_loss(on_real, 1.0) + _loss(on_fake, 0.0)) / 2, rate)
        discriminator.requires_grad_(False)
        distance = F.l1_loss(fakes, images)
        adversarial = _loss(discriminator(maps, fakes), 1.0)
        self.update("generator", adversarial + self.settings.l1_weight * distance, rate)
        discriminator.requires_grad_(True)
        return distance.item()

    @torch.inference_mode()
    def sample(self, maps: Tensor, seeds: list[int]) -> Tensor:
        return self.networks["generator"].eval()(maps, seeded_noise((1, *maps.shape[2:]), seeds))


def _loss(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

"""Satellite images by a conditional DDPM (Ho et al., NeurIPS 2020), from a map to an aerial image.

What is diffused is the difference between the image and its map, as in SRDiff (Li et al., Neurocomputing
2022): the map has the large colours already, so a small model learns the detail. The map is concatenated at
the U-Net's input. The U-Net predicts the clean difference (diffusers' `sample`). Sampling is DDIM's.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fakevlm.config.base import check_widths
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map
from fakevlm.synthesis.satellite.learning import device, seeded, set_rate

if TYPE_CHECKING:
    from diffusers import UNet2DModel

NAME = "ddpm"
_TIMESTEPS = 1000
_GROUPS = 8  # of channels, for normalisation
_SPREAD = 0.5  # standard deviation that a difference is scaled to, between the noise's 1 and nothing
_WARMUP = 0.08  # share of the training over which the learning rate rises


def scale_of(pixels: np.ndarray, cell: int, levels: int) -> float:
    """Return the factor that scales differences of images (n, h, w, 3) from their maps to `_SPREAD`."""
    some = pixels[:: 1 + len(pixels) // 256]
    rest = [np.float32(image) - enlarged(layout_map(image, cell, levels), cell) for image in some]
    return round(_SPREAD / max(float(np.std(np.stack(rest)) / 127.5), 1e-3), 4)


def _unet(size: int, widths: list[int], fold: int, attention: bool) -> "UNet2DModel":
    from diffusers import UNet2DModel

    check_widths(NAME, *widths)
    kinds = ["Attn" if attention and level == len(widths) - 1 else "" for level in range(len(widths))]
    return UNet2DModel(
        sample_size=size // fold,
        in_channels=6 * fold**2,
        out_channels=3 * fold**2,
        layers_per_block=1,
        block_out_channels=tuple(widths),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        norm_num_groups=_GROUPS,
        add_attention=attention,
    )


def _folded(images: Tensor, fold: int) -> Tensor:
    """Turn squares of `fold` × `fold` pixels into channels."""
    return F.pixel_unshuffle(images, fold) if fold > 1 else images


class Diffusion:
    """The diffusion model in training (see `learning.Learner`)."""

    def __init__(
        self, size: int, widths: list[int], *, fold: int, attention: bool, scale: float, learning_rate: float,
        seed: int,
    ) -> None:  # fmt: skip
        """Random weights.

        Args:
            size: pixels a side.
            widths: channels of the U-Net's levels, each half the size of the one before; multiples of 8.
            fold: side of the squares of pixels that become channels.
            attention: whether the coarsest level attends to itself.
            scale: of the differences (`scale_of`).
        """
        from diffusers import DDPMScheduler

        with seeded(seed):
            unet = _unet(size, widths, fold, attention)
        self._fold, self._scale, self._rate = fold, scale, learning_rate
        self.modules = {"unet": unet.to(device(), memory_format=torch.channels_last)}
        self.optimizers = {"unet": torch.optim.AdamW(unet.parameters(), learning_rate, weight_decay=0.0)}
        self._schedule = DDPMScheduler(
            num_train_timesteps=_TIMESTEPS,
            beta_schedule="squaredcos_cap_v2",
            prediction_type="sample",
            clip_sample_range=6 * _SPREAD,
        )

    def step(self, images: Tensor, maps: Tensor, generator: torch.Generator, done: float) -> float:
        """Update once; return the mean square error of the predicted difference.

        The learning rate rises, then falls to zero like a cosine.
        """
        clean = _folded((images - maps) * self._scale, self._fold)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        times = torch.randint(_TIMESTEPS, (len(clean),), generator=generator, device=clean.device)
        noisy = self._schedule.add_noise(clean, noise, times)
        guess = self.modules["unet"](torch.cat([noisy, _folded(maps, self._fold)], 1), times).sample
        loss = F.mse_loss(guess, clean)
        optimizer = self.optimizers["unet"]
        set_rate(
            optimizer, self._rate * min(1.0, (done + 1e-3) / _WARMUP) * (1 + math.cos(math.pi * done)) / 2
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.modules["unet"].parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def save(self, folder: Path) -> None:
        """Write `unet/` and `scheduler/` as diffusers does, and `difference.json`: scale and fold."""
        self.modules["unet"].save_pretrained(folder / "unet", safe_serialization=True)
        self._schedule.save_pretrained(folder / "scheduler")
        settings = json.dumps({"scale": self._scale, "fold": self._fold}) + "\n"
        (folder / "difference.json").write_text(settings, encoding="utf-8")


class Sampler:
    """A finished model, ready to sample."""

    def __init__(self, folder: Path, steps: int) -> None:
        """Loads what `Diffusion.save` wrote; `steps` of DDIM are taken."""
        from diffusers import DDIMScheduler, UNet2DModel

        unet = UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, local_files_only=True)
        self._unet = unet.to(device(), memory_format=torch.channels_last).eval()
        self._schedule = DDIMScheduler.from_pretrained(folder / "scheduler", timestep_spacing="trailing")
        self._schedule.set_timesteps(steps)
        settings = json.loads((folder / "difference.json").read_text(encoding="utf-8"))
        self._scale, self._fold = float(settings["scale"]), int(settings["fold"])

    @torch.inference_mode()
    def __call__(self, maps: Tensor, seeds: list[int]) -> Tensor:
        """Images (n, 3, h, w) in −1..1 after as many maps; image i depends on map i and seed i."""
        given = _folded(maps, self._fold)
        x = torch.stack(
            [
                torch.randn(
                    one.shape, generator=torch.Generator(one.device).manual_seed(s), device=one.device
                )
                for one, s in zip(given, seeds, strict=True)
            ]
        )
        for time in self._schedule.timesteps:
            x = self._schedule.step(self._unet(torch.cat([x, given], 1), time).sample, time, x).prev_sample
        return maps + (F.pixel_shuffle(x, self._fold) if self._fold > 1 else x) / self._scale

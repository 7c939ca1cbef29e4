"""Satellite images by a conditional DDPM (Ho et al., NeurIPS 2020), from a map to an aerial image.

The model diffuses the difference between the image and its map, as SRDiff does (Li et al., Neurocomputing
2022): the map has the large colours already, so a small model learns the detail. The map is concatenated at
the U-Net's input. The U-Net predicts the clean difference (diffusers' `sample`). Sampling is DDIM's.
"""

import math
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fakevlm.config.params import Diffusion, Satellites
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map
from fakevlm.synthesis.satellite.learning import Learner, device, seeded_noise

_TIMESTEPS = 1000
_GROUPS = 8  # of channels, for normalisation
_SPREAD = 0.5  # standard deviation that a difference is scaled to, between the noise's 1 and nothing
_WARMUP = 0.08  # share of the training over which the learning rate rises


def scale_of(pixels: np.ndarray, settings: Satellites) -> float:
    """Return the factor that scales differences of images (n, h, w, 3) from their maps to `_SPREAD`."""
    some = pixels[:: 1 + len(pixels) // 256]
    rest = [np.float32(image) - enlarged(layout_map(image, settings), settings.cell) for image in some]
    return round(_SPREAD / max(float(np.std(np.stack(rest)) / 127.5), 1e-3), 4)


class DDPM(Learner):
    """The U-Net and the noise schedule; `size` is pixels a side of an image, `scale` that of `scale_of`."""

    def __init__(self, settings: Diffusion, size: int, scale: float, seed: int) -> None:
        from diffusers import DDPMScheduler, UNet2DModel

        self.settings = settings
        blocks = [""] * (len(settings.widths) - 1) + ["Attn" if settings.attention else ""]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            unet = UNet2DModel(
                sample_size=size // settings.fold,
                in_channels=6 * settings.fold**2,
                out_channels=3 * settings.fold**2,
                layers_per_block=1,
                block_out_channels=tuple(settings.widths),
                down_block_types=tuple(f"{block}DownBlock2D" for block in blocks),
                up_block_types=tuple(f"{block}UpBlock2D" for block in reversed(blocks)),
                norm_num_groups=_GROUPS,
                add_attention=settings.attention,
            )
        unet.register_buffer("scale", torch.tensor(scale))  # so that it is stored with the weights
        self.networks = {"unet": unet.to(device(), memory_format=torch.channels_last)}
        options = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
        self._schedule = DDPMScheduler(_TIMESTEPS, **options, clip_sample_range=6 * _SPREAD)

    @cached_property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        weights, rate = self.networks["unet"].parameters(), self.settings.learning_rate
        return {"unet": torch.optim.AdamW(weights, rate, weight_decay=0.0)}

    def _folded(self, images: Tensor) -> Tensor:
        """Turn squares of `fold` × `fold` pixels into channels."""
        return F.pixel_unshuffle(images, self.settings.fold)

    def step(self, images: Tensor, maps: Tensor, generator: torch.Generator, done: float) -> float:
        """Update once; return the mean square error of the predicted difference."""
        clean = self._folded((images - maps) * self.networks["unet"].scale)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        times = torch.randint(_TIMESTEPS, (len(clean),), generator=generator, device=clean.device)
        noisy = self._schedule.add_noise(clean, noise, times)
        predicted = self.networks["unet"](torch.cat([noisy, self._folded(maps)], 1), times).sample
        loss = F.mse_loss(predicted, clean)
        warmup = min(1.0, (done + 1e-3) / _WARMUP)  # then the rate falls to zero like a cosine
        rate = self.settings.learning_rate * warmup * (1 + math.cos(math.pi * done)) / 2
        self.update("unet", loss, rate, clip=1.0)
        return loss.item()

    @torch.inference_mode()
    def sample(self, maps: Tensor, seeds: list[int]) -> Tensor:
        from diffusers import DDIMScheduler

        schedule = DDIMScheduler.from_config(self._schedule.config, timestep_spacing="trailing")
        schedule.set_timesteps(self.settings.sampling_steps)
        unet, condition = self.networks["unet"].eval(), self._folded(maps)
        x = seeded_noise(condition.shape[1:], seeds)
        for time in schedule.timesteps:
            x = schedule.step(unet(torch.cat([x, condition], 1), time).sample, time, x).prev_sample
        return maps + F.pixel_shuffle(x, self.settings.fold) / unet.scale

"""The generators of satellite images (collect.satellites)."""

import math
from typing import Annotated

from pydantic import Field, model_validator

from fakevlm.config.base import Section, Width


class GAN(Section):
    """Of pix2pix (`synthesis.satellite.gan`)."""

    images: int = Field(ge=0)
    width: Width
    depth: int = Field(ge=1)
    crop: int = Field(ge=16)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    l1_weight: float = Field(ge=0)

    @property
    def multiple(self) -> int:
        """What the sides of images and crops must be a multiple of."""
        return 2**self.depth


class Diffusion(Section):
    """Of the conditional DDPM (`synthesis.satellite.diffusion`)."""

    images: int = Field(ge=0)
    widths: list[Width] = Field(min_length=1)
    fold: int = Field(ge=1)
    attention: bool
    crop: int = Field(ge=16)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    sampling_steps: int = Field(ge=1, le=1000)

    @property
    def multiple(self) -> int:
        """What the sides of images and crops must be a multiple of."""
        return self.fold * 2 ** (len(self.widths) - 1)


class Satellites(Section):
    image_size: int = Field(ge=32)
    cell: int = Field(ge=2)
    levels: int = Field(ge=2, le=256)
    learn_share: float = Field(gt=0, lt=1)
    checkpoint_every: int = Field(ge=1)
    sampled_at_once: int = Field(ge=1)
    jpeg: list[Annotated[int, Field(ge=1, le=100)]] = Field(min_length=2, max_length=2)
    gan: GAN
    diffusion: Diffusion

    @model_validator(mode="after")
    def _sizes(self) -> "Satellites":
        for name, section in (("gan", self.gan), ("diffusion", self.diffusion)):
            step = math.lcm(self.cell, section.multiple)
            if self.image_size % step or section.crop % step or section.crop > self.image_size:
                raise ValueError(
                    f"image_size {self.image_size} and {name}.crop {section.crop} must be multiples of "
                    f"{step} (of cell and of what the network halves), the crop no larger than the image"
                )
        if self.jpeg[0] > self.jpeg[1]:
            raise ValueError("jpeg is the lowest quality, then the highest")
        return self

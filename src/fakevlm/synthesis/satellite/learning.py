"""What both generators of satellite images share: batches, noise, training that resumes.

All randomness of a step comes from the seed and the step's number, and the state is cached now and then, so a
killed training continues to the same weights.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from fakevlm.cache import Cache, key
from fakevlm.config.params import GAN, Diffusion, Satellites
from fakevlm.errors import UserError
from fakevlm.progress import bar
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def signed(pixels: Sequence[np.ndarray]) -> Tensor:
    """Return n images (h, w, 3) uint8 as (n, 3, h, w) float32 in −1..1, in convolutions' favourite layout."""
    tensor = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.to(device(), memory_format=torch.channels_last)


def unsigned(images: Tensor) -> np.ndarray:
    """Return (n, 3, h, w) in −1..1 as (n, h, w, 3) uint8."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def random_batch(
    pixels: np.ndarray, section: GAN | Diffusion, settings: Satellites, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return random crops of images (n, size, size, 3), half of them mirrored, and their maps; see `signed`.

    A crop starts at a whole cell, so its map is the crop of the image's map. No crop is turned upside down:
    in one corpus all shadows fall to the same side.
    """
    size, crop, cell = section.batch_size, section.crop, settings.cell
    chosen = rng.integers(len(pixels), size=size)
    corners = rng.integers((pixels.shape[1] - crop) // cell + 1, size=(size, 2)) * cell
    mirrored = rng.random(size) < 0.5
    crops = []
    for i, (y, x), mirror in zip(chosen, corners, mirrored, strict=True):
        image = pixels[i, y : y + crop, x : x + crop]
        crops.append(image[:, ::-1] if mirror else image)
    return signed(crops), signed([enlarged(layout_map(image, settings), cell) for image in crops])


def seeded_noise(shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Return normal noise (n, *shape); row i depends on seed i alone."""
    generators = [torch.Generator(device()).manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(*shape, generator=one, device=device()) for one in generators])


class Learner(ABC):
    """A generator of images: trained step by step, then sampled."""

    settings: GAN | Diffusion
    networks: dict[str, nn.Module]  # everything with weights, by name; the first one samples

    @property
    @abstractmethod
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The networks' optimizers, by the same names; made when needed, for importing them takes seconds."""

    @abstractmethod
    def step(self, images: Tensor, maps: Tensor, generator: torch.Generator, done: float) -> float:
        """Update the weights once; return the loss that the progress bar shows.

        Images and maps are (n, 3, h, w) in −1..1. All randomness comes from `generator`; the share of the
        training that is `done`, 0..1, sets the learning rate.
        """

    @abstractmethod
    def sample(self, maps: Tensor, seeds: list[int]) -> Tensor:
        """Return images (n, 3, h, w) in −1..1; image i depends on map i and seed i alone."""

    def save(self, folder: Path) -> None:
        """Write the network that samples: config.json, safetensors."""
        next(iter(self.networks.values())).save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote, to sample with. Raises `UserError` if it is missing or has other sizes."""
        try:
            load_model(next(iter(self.networks.values())), next(folder.glob("*.safetensors")))
        except (StopIteration, RuntimeError, SafetensorError) as error:
            what = f"{folder} holds no weights of a {type(self).__name__} of these sizes: {error}"
            raise UserError(what, "set collect.satellites.weights to null: then it is trained") from error

    def update(self, name: str, loss: Tensor, rate: float, clip: float = float("inf")) -> None:
        """Take one step of a network's optimizer; `clip` is the largest norm of its gradient."""
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        if clip < float("inf"):
            nn.utils.clip_grad_norm_(self.networks[name].parameters(), clip)
        optimizer.step()

    def store(self, values: Cache, run: str, step: int) -> None:
        """Cache the state after `step` steps, a value a network and optimizer."""
        states = {key(run, "step"): str(step).encode()}
        for number, part in enumerate((*self.networks.values(), *self.optimizers.values())):
            buffer = io.BytesIO()
            torch.save(part.state_dict(), buffer)
            states[key(run, number)] = buffer.getvalue()
        values.put_many(states)

    def restore(self, values: Cache, run: str) -> int:
        """Load the cached state; return the steps it was cached after, 0 if there is none."""
        step = values.get(key(run, "step"))
        if step is None:
            return 0
        for number, part in enumerate((*self.networks.values(), *self.optimizers.values())):
            state = io.BytesIO(values.get(key(run, number)))
            part.load_state_dict(torch.load(state, map_location=device(), weights_only=True))
        return int(step)

    def fit(self, pixels: np.ndarray, settings: Satellites, seed: int, values: Cache, run: str) -> None:
        """Train on images (n, size, size, 3) uint8, from the last state cached under `run` if any."""
        first, steps = self.restore(values, run), self.settings.steps
        with bar(steps, f"satellites: training {type(self).__name__}", unit="step") as progress:
            progress.update(first)
            for step in range(first, steps):
                rng = np.random.default_rng([seed, step])
                images, maps = random_batch(pixels, self.settings, settings, rng)
                generator = torch.Generator(device()).manual_seed(int(rng.integers(2**62)))
                loss = self.step(images, maps, generator, step / steps)
                progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
                progress.update()
                if (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps:
                    self.store(values, run, step + 1)

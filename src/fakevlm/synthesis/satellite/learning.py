"""Training of both generators: seeded batches, checkpoints, and finished weights that are found again.

A run's folder is named after everything that decides its weights. Randomness depends on the seed and the step
alone, so a run that was killed and continued ends with the same weights."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fakevlm.config.satellites import GAN, Diffusion, Satellites
from fakevlm.progress import bar
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map

_CHECKPOINT = "checkpoint.safetensors"


class Learner(Protocol):
    """A generator in training.

    Attributes:
        modules: everything with weights, by name.
        optimizers: by name.
    """

    modules: dict[str, torch.nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]

    def step(self, images: Tensor, maps: Tensor, generator: torch.Generator, done: float) -> float:
        """One update.

        Args:
            images, maps: (n, 3, h, w) in −1..1.
            generator: all randomness of the step.
            done: share of the training that lies behind, 0..1; sets the learning rate.

        Returns:
            The loss that the progress bar shows.
        """
        ...

    def save(self, folder: Path) -> None:
        """Writes the finished model."""
        ...


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights from `seed`; the process's own random numbers go on as if nothing had happened."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def signed(pixels: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) float32 in −1..1, laid out as convolutions on a CPU like it."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.to(device(), memory_format=torch.channels_last)


def unsigned(images: Tensor) -> np.ndarray:
    """(n, 3, h, w) in −1..1 → (n, h, w, 3) uint8."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def batch(
    pixels: np.ndarray, size: int, crop: int, cell: int, levels: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random batch: crops of images, half of them mirrored, and their maps.

    Crops start at whole cells, so that a crop's map is the crop of the map. Nothing is turned upside down,
    since in one corpus all shadows fall to the same side."""
    chosen = rng.integers(len(pixels), size=size)
    places = rng.integers((pixels.shape[1] - crop) // cell + 1, size=(size, 2)) * cell
    pieces = np.stack(
        [pixels[i, y : y + crop, x : x + crop] for i, (y, x) in zip(chosen, places, strict=True)]
    )
    mirrored = rng.random(size) < 0.5
    pieces[mirrored] = pieces[mirrored, :, ::-1]
    maps = np.stack([enlarged(layout_map(piece, cell, levels), cell) for piece in pieces])
    return signed(pieces), signed(maps)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def run_folder(work: Path, name: str, parts: Any) -> Path:
    """`<work>/<name>-<hash>`, the hash over `parts` (anything JSON holds)."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return work / f"{name}-{digest[:16]}"


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """Return everything that a run continues from, under flat names."""
    flat = {}
    for name, module in learner.modules.items():
        flat |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in learner.optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            flat |= {f"optimizer/{name}/{number}/{key}": value for key, value in state.items()}
    return {key: value.detach().cpu().contiguous().clone() for key, value in flat.items()}


def _restore(learner: Learner, tensors: dict[str, Tensor]) -> None:
    for name, module in learner.modules.items():
        start = f"module/{name}/"
        module.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
    for name, optimizer in learner.optimizers.items():
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer/{name}/"):
                _, _, number, what = key.split("/")
                states.setdefault(int(number), {})[what] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _last_step(checkpoint: Path, learner: Learner) -> int:
    """Restore a checkpoint and return the step it was written after; 0 if there is none that can be read."""
    if not checkpoint.is_file():
        return 0
    try:
        tensors = load_file(checkpoint)
    except SafetensorError:  # cut off by a full disk: start again rather than stop
        return 0
    step = int(tensors.pop("step"))
    _restore(learner, tensors)
    return step


def fit(
    folder: Path,
    learner: Learner,
    pixels: np.ndarray,
    name: str,
    section: GAN | Diffusion,
    settings: Satellites,
    seed: int,
) -> Path:
    """Train `learner`, from its last checkpoint if there is one; return the folder of the finished model.

    Args:
        folder: of this run (`run_folder`).
        pixels: (n, size, size, 3) uint8, n ≥ 1; may be mapped from disk.
        own: how long and in which batches this generator is trained.
        settings: of both generators.
        seed: of batches and noise; (seed, step) decides a step's randomness.
    """
    done = folder / "model"
    if done.is_dir():
        return done
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / _CHECKPOINT
    first = _last_step(checkpoint, learner)
    steps, cell, levels = section.steps, settings.cell, settings.levels
    with bar(steps, f"satellites: training {name}", unit="step") as progress:
        progress.update(first)
        for step in range(first, steps):
            rng = np.random.default_rng([seed, step])
            images, maps = batch(pixels, section.batch_size, section.crop, cell, levels, rng)
            generator = torch.Generator(device()).manual_seed(int(rng.integers(2**62)))
            loss = learner.step(images, maps, generator, step / steps)
            progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
            progress.update()
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < steps:
                part = checkpoint.with_suffix(".part")
                save_file({**_tensors(learner), "step": torch.tensor(step + 1)}, part)
                part.replace(checkpoint)
    part = folder / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    learner.save(part)
    part.replace(done)
    checkpoint.unlink(missing_ok=True)
    return done

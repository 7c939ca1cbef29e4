"""Satellite images by the GAN and the diffusion model.

Trained, or found trained, then sampled (paper section 3.2).

Both learn from the same part of the aerial images, which `collect` puts in the train split: no generator has
seen an image that a model is tested on. The other aerial images lend their maps to both generators. A
generated image has the `item` of the aerial image that lent its map, so no split parts the two."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fakevlm import cache
from fakevlm.config.satellites import Satellites
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import FAKE, Record
from fakevlm.errors import UserError
from fakevlm.progress import bar
from fakevlm.synthesis.jpeg import encode_jpeg
from fakevlm.synthesis.satellite import measure
from fakevlm.synthesis.satellite.aerials import Aerials, Lender, enlarged, square

if TYPE_CHECKING:
    from torch import Tensor

_STREAM = 23  # sets this module's random numbers apart from others with the same seed
GENERATORS = {"gan": "pix2pix", "diffusion": "ddpm"}  # section of collect.satellites → name in records
_WEIGHTLESS = {"images", "sampling_steps"}  # settings that leave the weights as they are


def _key(name: str, code: tuple[ModuleType, ...], aerials: Aerials, settings: Satellites, seed: int) -> list:
    """Return everything that decides the weights: data, settings, code."""
    section = getattr(settings, name).model_dump(exclude=_WEIGHTLESS)
    return [
        aerials.digest,
        settings.image_size,
        settings.cell,
        settings.levels,
        section,
        seed,
        cache.code_version(*(module.__name__ for module in code)),
    ]


def _trained(
    method: str, aerials: Aerials, settings: Satellites, seed: int, work: Path
) -> tuple[Callable[["Tensor", list[int]], "Tensor"], Any]:
    """Return a trained generator's sampler, and what decides its images beside maps and seeds."""
    from fakevlm.synthesis.satellite import aerials as spool
    from fakevlm.synthesis.satellite import diffusion, gan, learning

    section, name = getattr(settings, method), GENERATORS[method]
    module = gan if method == "gan" else diffusion
    folder = learning.run_folder(work, name, _key(method, (module, learning, spool), aerials, settings, seed))
    if method == "gan":
        shape = gan.Shape(section.width, section.depth)
        learner = gan.Pix2Pix(
            shape, learning_rate=section.learning_rate, l1_weight=section.l1_weight, seed=seed
        )
    else:
        scale = diffusion.scale_of(aerials.learned(), settings.cell, settings.levels)
        options = {
            "fold": section.fold,
            "attention": section.attention,
            "scale": scale,
            "learning_rate": section.learning_rate,
        }
        learner = diffusion.Diffusion(settings.image_size, section.widths, seed=seed, **options)
    model = learning.fit(folder, learner, aerials.learned(), name, section, settings, seed)
    if method == "gan":
        return gan.Sampler(model), folder.name
    return diffusion.Sampler(model, section.sampling_steps), [folder.name, section.sampling_steps]


def _wanted(settings: Satellites) -> dict[str, int]:
    return {name: getattr(settings, name).images for name in GENERATORS}


def _enough(learned: int, lending: int, settings: Satellites, about: str = "") -> None:
    most = max(_wanted(settings).values())
    if most and (not learned or lending < most):
        raise UserError(
            f"{about}{learned} aerial images to learn from and {about}{lending} that lend a map "
            f"are too few for {most} generated ones",
            "name CVUSA's or VIGOR's folder in collect.corpora, change collect.satellites.learn_share, "
            "or ask for fewer in collect.satellites.gan.images and diffusion.images",
        )


def need_aerials(count: float, settings: Satellites) -> None:
    """Check early that there will be enough real aerial images.

    Args:
        count: about how many there will be.

    Raises:
        UserError: there will hardly be enough.
    """
    learned = round(count * settings.learn_share)
    _enough(learned, round(count) - learned, settings, "about ")


def generate(
    aerials: Aerials, settings: Satellites, seed: int, work: Path, *, measured: bool, values: cache.Cache
) -> Iterator[tuple[Record, GroundTruth | None]]:
    """Yield the images of both generators, with measured ground truth if `measured` (see `measure`).

    Args:
        aerials: the real aerial images, all taken in.
        work: folder of checkpoints and finished weights.
        values: the images sampled before an interruption.

    Raises:
        UserError: there are too few aerial images to learn from or to lend maps.
    """
    wanted = _wanted(settings)
    if not any(wanted.values()):
        return
    _enough(aerials.count, len(aerials.lenders), settings)
    limits = measure.thresholds(aerials.learned(), settings.cell, settings.levels) if measured else None
    for number, (method, name) in enumerate(GENERATORS.items()):
        if wanted[method]:
            sampler, key = _trained(method, aerials, settings, seed, work)
            yield from _sampled(
                aerials,
                settings,
                [seed, _STREAM, number],
                name,
                wanted[method],
                sampler,
                key,
                values,
                limits,
            )


def _sampled(
    aerials: Aerials, settings: Satellites, seed: list[int], name: str, n: int, sampler: Callable, key: Any,
    values: cache.Cache, limits: measure.Thresholds | None,
) -> Iterator[tuple[Record, GroundTruth | None]]:  # fmt: skip
    from fakevlm.synthesis.satellite.learning import signed, unsigned

    lenders, maps = aerials.lent(n)
    at_once = settings.sampled_at_once
    with bar(n, f"satellites: {name}") as progress:
        for start in range(0, n, at_once):
            turn = range(start, min(start + at_once, n))
            rngs = [np.random.default_rng([*seed, i]) for i in turn]
            seeds = [int(rng.integers(2**62)) for rng in rngs]
            given_maps = hashlib.sha256(np.ascontiguousarray(maps[turn.start : turn.stop])).hexdigest()
            batch = cache.key("satellites", key, seeds, given_maps)
            if packed := values.get(batch):
                images = cache.unpack(packed)["images"]
            else:
                given = signed(np.stack([enlarged(maps[i], settings.cell) for i in turn]))
                images = unsigned(sampler(given, seeds))
                values.put(batch, cache.pack({"images": images}))
            for i, rng, pixels in zip(turn, rngs, images, strict=True):
                yield _finished(lenders[i], name, pixels, maps[i], rng, settings, limits)
            progress.update(len(turn))


def _finished(
    lender: Lender, name: str, pixels: np.ndarray, layout: np.ndarray, rng: np.random.Generator,
    settings: Satellites, limits: measure.Thresholds | None,
) -> tuple[Record, GroundTruth | None]:  # fmt: skip
    """Return the image as a JPEG file, and what is measured in that file."""
    jpeg, _ = encode_jpeg(pixels, rng, tuple(settings.jpeg))
    path = f"satellite/fake/{PurePosixPath(lender.id).stem}_{name}_fake_B.jpg"
    record = Record(path, jpeg, FAKE, "satellite", lender.item, "satellite", name)
    if limits is None:
        return record, None
    seen = square(record.pil(), settings.image_size)
    return record, GroundTruth(
        path, FAKE, "satellite", measure.artifacts(seen, layout, settings.cell, limits)
    )

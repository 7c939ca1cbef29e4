"""Satellite images by the GAN and the diffusion model, named or trained here (paper section 3.2).

Both learn from the same part of the aerial images, which joins the train split: no generator has seen an
image that a model is tested on. The other aerial images lend their maps to both generators. A generated image
has the `group` of the aerial image that lent its map, so no split parts the two.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from fakevlm import cache, paths
from fakevlm.config.params import Satellites
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import FAKE, Record
from fakevlm.errors import UserError
from fakevlm.prefetch import THREADS, prefetch
from fakevlm.progress import track
from fakevlm.synthesis.rendered import encode_jpeg
from fakevlm.synthesis.satellite.aerials import Aerials, enlarged, square
from fakevlm.synthesis.satellite.measure import artifacts, thresholds

if TYPE_CHECKING:
    from fakevlm.synthesis.satellite.learning import Learner

_STREAM = 23  # sets this module's random numbers apart from others with the same seed
GENERATORS = {"gan": "pix2pix", "diffusion": "ddpm"}  # section of collect.satellites → name in records
_CODE = tuple(f"fakevlm.synthesis.satellite.{name}" for name in ("gan", "diffusion", "learning", "aerials"))


def _trained(
    method: str, aerials: Aerials, settings: Satellites, seed: int, values: cache.Cache, kept: Path
) -> "tuple[Learner, str]":
    """Return a generator, named or trained here and saved to `kept`, and the key of what decides it."""
    from fakevlm.synthesis.satellite.diffusion import DDPM, scale_of
    from fakevlm.synthesis.satellite.gan import Pix2Pix

    section, pixels, name = getattr(settings, method), aerials.learned(), GENERATORS[method]
    options = section.model_dump(exclude={"images", "sampling_steps"})
    sizes = [settings.image_size, settings.cell, settings.levels]
    named = settings.weights and paths.resolve(settings.weights) / name
    origin = cache.model_version(named) if named else aerials.digest.hexdigest()
    run = cache.key(method, origin, sizes, options, seed, cache.code_version(*_CODE))
    if method == "gan":
        learner = Pix2Pix(section, seed)
    else:
        learner = DDPM(section, settings.image_size, scale_of(pixels, settings), seed)
    if named:
        learner.load(named)
        seen = set((named / "learned.txt").read_text(encoding="utf-8").splitlines())
        if both := seen & {lender.group for lender in aerials.lenders}:
            what = f"{named} has learned from {min(both)}, which is to lend its map (another seed?)"
            raise UserError(what, "set collect.satellites.weights to null: then the generators are trained")
    else:
        learner.fit(pixels, settings, seed, values, run)
        learner.save(kept / name)
        (kept / name / "learned.txt").write_text("\n".join([*aerials.learned_from, ""]), encoding="utf-8")
    return learner, run


def need_aerials(learned: float, lending: float, settings: Satellites, about: str = "") -> None:
    """Raise `UserError` if too few aerial images are there; `about` is "about " if numbers are estimates."""
    most = max(settings.gan.images, settings.diffusion.images)
    if most and (not learned or lending < most):
        raise UserError(
            f"{about}{learned} aerial images to learn from and {about}{lending} that lend a map "
            f"are too few for {most} generated ones",
            "name CVUSA's or VIGOR's folder in collect.corpora, change collect.satellites.learn_share, "
            "or ask for fewer in collect.satellites.gan.images and diffusion.images",
        )


def _sample(
    learner: "Learner", cell: int, values: cache.Cache, key: str, part: tuple[np.ndarray, list[int]]
) -> np.ndarray:
    """Return an image for each map and seed of `part`, (n, size, size, 3) uint8, from the cache if there."""
    from fakevlm.synthesis.satellite.learning import signed, unsigned

    maps, seeds = part
    batch = cache.key(key, seeds, hashlib.sha256(maps).hexdigest())
    if packed := values.get(batch):
        return cache.unpack(packed)["images"]
    images = unsigned(learner.sample(signed([enlarged(layout, cell) for layout in maps]), seeds))
    values.put(batch, cache.pack({"images": images}))
    return images


def generate(
    aerials: Aerials, settings: Satellites, seed: int, *, measured: bool, values: cache.Cache, kept: Path
) -> Iterator[tuple[Record, GroundTruth | None]]:
    """Yield the images of both generators, with measured ground truth if `measured` (see `measure`).

    Generators trained here are saved to the folder `kept`, which `settings.weights` may name. A killed run
    continues from the weights and images cached in `values`. Raises as `need_aerials` does.
    """
    from fakevlm.synthesis.satellite.learning import device

    need_aerials(len(aerials.learned_from), len(aerials.lenders), settings)
    limits = None
    for number, (method, name) in enumerate(GENERATORS.items()):
        section = getattr(settings, method)
        if not section.images:
            continue
        if measured and limits is None:
            limits = thresholds(aerials.learned(), settings)
        learner, run = _trained(method, aerials, settings, seed, values, kept)
        lenders = aerials.lent(section.images)
        maps = np.stack([lender.layout for lender in lenders])
        rngs = [np.random.default_rng([seed, _STREAM, number, i]) for i in range(len(lenders))]
        seeds = [int(rng.integers(2**62)) for rng in rngs]
        step = settings.sampled_at_once
        parts = [(maps[n : n + step], seeds[n : n + step]) for n in range(0, len(maps), step)]
        key = cache.key(run, getattr(section, "sampling_steps", None))
        threads = THREADS if device().type == "cpu" else 1
        batches = prefetch(partial(_sample, learner, settings.cell, values, key), parts, threads)
        drawn = track(chain.from_iterable(batches), f"satellites: {name}", len(lenders))
        for lender, rng, pixels in zip(lenders, rngs, drawn, strict=True):
            jpeg, _ = encode_jpeg(pixels, rng, tuple(settings.jpeg))
            path = f"satellite/fake/{PurePosixPath(lender.id).stem}_{name}_fake_B.jpg"
            record = Record(path, jpeg, FAKE, "satellite", lender.group, "satellite", name)
            ground_truth = None
            if limits is not None:
                decoded = square(record.pil(), settings.image_size)
                flaws = artifacts(decoded, lender.layout, settings.cell, limits)
                ground_truth = GroundTruth(path, FAKE, "satellite", flaws)
            yield record, ground_truth

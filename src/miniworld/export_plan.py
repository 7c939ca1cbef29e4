"""Which pictures the miniature's corpora hold: one job a picture (tables: export_plan.yaml).

Every job has a seed of its own, so a picture does not depend on how many others are made or in which order.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fakevlm.data.clues import KINDS
from fakevlm.data.corpora import genimage
from fakevlm.data.page_layout import STYLES as PAGE_STYLES
from fakevlm.data.records import FAKE, REAL


@dataclass(frozen=True)
class Sizes:
    """How many of what. They keep the corpora's proportions as far as a few megabytes allow.

    Attributes:
        genimage, chameleon, cvusa, vigor, m6doc: images.
        videos: FF++ originals (an even number: they come in pairs); each is manipulated in four ways.
        frames: frames a video.
        loki: images a category, three in five of them fake.
        dmimage_fakes, dmimage_reals: images a folder.
        copies: GenImage photographs that lie under a second generator too.
    """

    genimage: int = 1920
    chameleon: int = 400
    cvusa: int = 226
    vigor: int = 114
    m6doc: int = 250
    videos: int = 80
    frames: int = 4
    loki: int = 40
    dmimage_fakes: int = 18
    dmimage_reals: int = 66
    copies: int = 10

    def scaled(self, factor: float) -> "Sizes":
        """Return the same proportions, smaller: at least two of each, an even number of videos."""
        new = {f.name: max(2, round(getattr(self, f.name) * factor)) for f in fields(self)}
        return replace(self, **new | {"frames": self.frames, "videos": max(6, 2 * round(new["videos"] / 2))})


@dataclass(frozen=True)
class Job:
    """One picture to be drawn.

    Attributes: file: where it is written, relative to the export's folder; `<index>`, `<index3>` and
        `<synset>` stand for the ImageNet class of what the picture shows, known once it is drawn. path: its
        record's path, as the corpus's reader makes it; same placeholders. seed: of its own random generator.
        options: passed to `world.shoot`. page: for documents, the style of page to lay out."""

    file: str
    path: str
    category: str
    seed: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    page: str | None = None


PLAN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_GENIMAGE_CATEGORIES = (
    "animal",
    "object",
    "human",
    "scene",
    "animal",
    "object",
    "human",
    "scene",
    "object",
    "animal",
)


def genimage_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield half generated images, half photographs.

    All JPEG, whereas the real corpus's formats tell the label.
    """
    keys = list(PLAN["generators"])
    for i in range(n):
        generator, label = keys[i // 2 % len(keys)], (REAL, FAKE)[i % 2]
        k = i // (2 * len(keys))
        made_by = PLAN["generators"][generator]
        split = "val" if k % 7 == 6 else "train"
        category = _GENIMAGE_CATEGORIES[(k + i // 2) % len(_GENIMAGE_CATEGORIES)]
        options: dict[str, Any] = {}
        if label == FAKE:
            file = made_by["file"].replace("<n5>", f"{k:05d}").replace("<n>", str(k)) + ".JPEG"
            options = {"fake": True, "kinds": made_by["kinds"]}
        else:
            file = f"ILSVRC2012_val_{i + 1:08d}.JPEG" if split == "val" else f"<synset>_{i + 1}.JPEG"
        place = f"genimage/{made_by['folder']}/{split}/{'ai' if label == FAKE else 'nature'}/{file}"
        yield Job(place, genimage.record_id(label, generator, file), category, (seed, 1, i), options)


def chameleon_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield fakes with one faint artifact each; every seventh shows none at all."""
    for i in range(n):
        label = (REAL, FAKE)[i % 2]
        name = uuid.UUID(bytes=np.random.default_rng([seed, 2, i, 1]).bytes(16), version=4)
        options: dict[str, Any] = {}
        if label == FAKE:
            hidden = i // 2 % 7 == 3
            options = {"fake": True, "count": (0, 0) if hidden else (1, 1), "strength": (0.5, 0.8)}
        kind = "real" if label == REAL else "fake"
        category = ("human", "scene", "object", "animal")[i // 2 % 4]
        file = f"chameleon/test/{label ^ 1}_{kind}/{name}.jpg"
        yield Job(file, f"chameleon/{kind}/{name}.jpg", category, (seed, 2, i), options)


def cvusa_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield aerial images of suburbs and of the country."""
    for i in range(n):
        name = f"{44 + 37 * i:07d}.jpg"
        options = {"variant": ("suburban", "natural")[i % 2]}
        yield Job(f"cvusa/bingmap/19/{name}", f"satellite/real/{name}", "satellite", (seed, 3, i), options)


def vigor_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield aerial images of cities, named by their coordinates."""
    for i in range(n):
        city = list(PLAN["cities"])[i % len(PLAN["cities"])]
        lat, lon = np.array(PLAN["cities"][city]) + np.random.default_rng([seed, 4, i, 1]).uniform(
            -0.02, 0.02, 2
        )
        name = f"satellite_{lat:.12f}_{lon:.12f}.jpg"
        file, options = f"vigor/{city}/satellite/{name}", {"variant": "urban"}
        yield Job(file, f"satellite/real/{name}", "satellite", (seed, 4, i), options)


def m6doc_jobs(n: int, seed: int) -> Iterator[Job]:
    """Yield pages of newspapers, papers and magazines; 6:1:3 train, validation and test as in M6Doc."""
    for i in range(n):
        style = PAGE_STYLES[i % len(PAGE_STYLES)]
        split = "train" if i % 10 < 6 else "val" if i % 10 == 6 else "test"
        name = f"{style}_{i:04d}.jpg"
        options = {"variant": style}
        yield Job(f"m6doc/{split}2017/{name}", f"doc/real/{name}", "doc", (seed, 5, i), options, style)


def loki_jobs(per_category: int, seed: int) -> Iterator[Job]:
    """Yield seven categories; fakes may show kinds that FakeClue-mini never does."""
    for c, (folder, category) in enumerate(PLAN["loki_folders"].items()):
        for i in range(per_category):
            fake = i % 5 >= 2
            path = f"image/{folder}/{i:04d}.jpg"
            options: dict[str, Any] = {"style": "loki"}
            if fake:
                options |= {"fake": True, "kinds": tuple(KINDS), "strength": (0.5, 1.0)}
            page = PAGE_STYLES[i % len(PAGE_STYLES)] if category == "doc" else None
            yield Job(f"loki/{path}", f"loki/{path}", category, (seed, 6, c, i), options, page)


def dmimage_jobs(fakes: int, reals: int, seed: int) -> Iterator[Job]:
    """Yield one folder a generator, three folders of photographs."""
    for g, (folder, made_by) in enumerate(PLAN["dmimage_fakes"].items()):
        shows, options = made_by["shows"], {"fake": True, "kinds": made_by["kinds"], "style": "dmimage"}
        for i in range(fakes):
            file = f"{folder}/{i:05d}.jpg"
            yield Job(
                f"dmimage/{file}", f"dmimage/fake/{file}", shows[i % len(shows)], (seed, 7, g, i), options
            )
    for g, (folder, shows) in enumerate(PLAN["dmimage_reals"].items()):
        for i in range(reals):
            file, options = f"{folder}/{i:05d}.jpg", {"style": "dmimage"}
            yield Job(
                f"dmimage/{file}", f"dmimage/real/{file}", shows[i % len(shows)], (seed, 8, g, i), options
            )


def jobs(sizes: Sizes, seed: int) -> list[Job]:
    """Return all single pictures of all corpora."""
    return [
        *genimage_jobs(sizes.genimage, seed),
        *chameleon_jobs(sizes.chameleon, seed),
        *cvusa_jobs(sizes.cvusa, seed),
        *vigor_jobs(sizes.vigor, seed),
        *m6doc_jobs(sizes.m6doc, seed),
        *loki_jobs(sizes.loki, seed),
        *dmimage_jobs(sizes.dmimage_fakes, sizes.dmimage_reals, seed),
    ]

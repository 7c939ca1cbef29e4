"""Which pictures the miniature's corpora hold: one job a picture, with its file, its place in the records and its making.

Every job has a seed of its own, so a picture does not depend on how many others are made or in which order.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from fakevlm.data.clues import KINDS
from fakevlm.data.corpora import genimage
from fakevlm.data.page_layout import STYLES as PAGE_STYLES
from fakevlm.data.records import FAKE, REAL


@dataclass(frozen=True)
class Sizes:
    """How many of what. The numbers keep the corpora's proportions as far as a few megabytes allow.

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
        """The same proportions, smaller; an even number of videos, never nothing of anything."""
        new = {f.name: max(2, round(getattr(self, f.name) * factor)) for f in fields(self)}
        return replace(self, **new | {"frames": self.frames, "videos": max(6, 2 * round(new["videos"] / 2))})


@dataclass(frozen=True)
class Job:
    """One picture to be made.

    Attributes:
        file: where it is written, relative to the export's folder; `<index>`, `<index3>` and `<synset>` stand for the ImageNet class of
            what the picture shows, known once it is made.
        path: its record's path, as the corpus's reader makes it; same placeholders.
        seed: of its own random generator.
        options: passed to `world.shoot`.
        page: for documents, the style of page to lay out.
    """

    file: str
    path: str
    category: str
    seed: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    page: str | None = None


# ImageNet classes (index, synset) for what the miniature's scenes show.
CLASSES: dict[str, tuple[tuple[int, str], ...]] = {
    "dog": ((207, "n02099601"),),
    "cat": ((281, "n02123045"),),
    "horse": ((339, "n02389026"),),
    "bird": ((12, "n01532829"),),
    "person": ((981, "n09835506"), (982, "n10148035"), (983, "n10565667")),
    "chair": ((559, "n03376595"), (765, "n04099969")),
    "bottle": ((898, "n04557648"), (907, "n04591713")),
    "car": ((817, "n04285008"), (511, "n03100240")),
    "lamp": ((846, "n04380533"),),
    "shelf": ((453, "n02870880"),),
    "sign": ((919, "n06794110"),),
    "street": ((698, "n03877845"), (498, "n03032252"), (888, "n04532670")),
    "country": ((979, "n09468604"), (970, "n09193705")),
}

# Folder, the name in its files, and which artifacts it makes most: no generator errs like another.
GENERATORS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "midjourney": ("Midjourney", "<index>_midjourney_<n>", ("smooth", "halo", "glare", "extra_part", "shadow", "bent")),
    "vqdm": ("VQDM", "VQDM_1000_200_00_<index3>_vqdm_<n5>", ("grid", "repeat", "misaligned", "speckle", "garble")),
    "wukong": ("Wukong", "<index3>_wukong_<n5>", ("extra_part", "melt", "tint", "garble", "asymmetry", "smooth")),
    "sdv1.4": ("Stable Diffusion V1.4", "<index3>_sdv4_<n5>", ("extra_part", "asymmetry", "garble", "melt", "shadow", "bent")),
    "sdv1.5": ("Stable Diffusion V1.5", "<index3>_sdv5_<n5>", ("extra_part", "duplicate", "garble", "smooth", "shadow", "bent")),
    "glide": ("GLIDE", "GLIDE_1000_200_00_<index3>_glide_<n5>", ("smear", "melt", "tint", "bent", "misaligned", "asymmetry")),
    "biggan": ("BigGAN", "<index3>_biggan_<n5>", ("repeat", "speckle", "duplicate", "asymmetry", "melt", "grid")),
    "adm": ("ADM", "<index>_adm_<n>", ("smear", "grid", "duplicate", "misaligned", "shadow", "glare")),
}  # fmt: skip

# Folders of DMimage and what their images show; each generator errs in its own way, also in ways FakeClue-mini never shows.
DMIMAGE_FAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "progan_lsun": (("object", "scene"), ("grid", "repeat", "melt", "ringing")),
    "stylegan2_ffhq_256x256": (("human",), ("asymmetry", "melt", "smooth", "halo")),
    "stylegan3_r_ffhqu_256x256": (("human",), ("asymmetry", "smooth", "misaligned", "ringing")),
    "biggan_256": (("animal", "object"), ("repeat", "duplicate", "asymmetry", "speckle")),
    "eg3d": (("human",), ("halo", "melt", "shadow")),
    "taming-transformers_class2image_ImageNet": (("animal", "object"), ("grid", "misaligned", "banding")),
    "dalle-mini_valid": (("animal", "object", "scene", "human"), ("melt", "smear", "garble", "float")),
    "dalle_2": (("animal", "object", "scene", "human"), ("garble", "extra_part", "shadow", "smooth")),
    "glide_text2img_valid": (("animal", "object", "scene", "human"), ("smear", "tint", "melt", "bent")),
    "latent-diffusion_class2image_ImageNet": (("animal", "object"), ("extra_part", "banding", "duplicate")),
    "latent-diffusion_noise2image_FFHQ": (("human",), ("asymmetry", "smooth", "tint")),
    "latent-diffusion_text2img_valid": (("animal", "object", "scene"), ("extra_part", "bent", "garble", "float")),
    "stable_diffusion_256": (("animal", "object", "scene", "human"), ("extra_part", "shadow", "garble", "bent")),
    "guided-diffusion_class2image_ImageNet": (("animal", "object"), ("smear", "glare", "duplicate", "ringing")),
}  # fmt: skip
DMIMAGE_REALS = {
    "real_coco_valid": ("animal", "object", "scene", "human"),
    "real_imagenet_valid": ("animal", "object"),
    "real_ucid": ("scene", "object", "human"),
}

LOKI_FOLDERS = {  # LOKI's name of each category (sic) and the miniature's
    "animals": "animal",
    "doc": "doc",
    "medicine": "medicine",
    "object": "object",
    "person": "human",
    "satellite": "satellite",
    "sence": "scene",
}
CITIES = {
    "Chicago": (41.87, -87.65),
    "NewYork": (40.74, -73.98),
    "SanFrancisco": (37.76, -122.43),
    "Seattle": (47.61, -122.33),
}
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
    """Half generated, half photographs; all JPEG, since in the real corpus the file format gives the label away."""
    keys = list(GENERATORS)
    for i in range(n):
        generator, label = keys[i // 2 % len(keys)], (REAL, FAKE)[i % 2]
        k = i // (2 * len(keys))
        folder, name, kinds = GENERATORS[generator]
        split = "val" if k % 7 == 6 else "train"
        category = _GENIMAGE_CATEGORIES[(k + i // 2) % len(_GENIMAGE_CATEGORIES)]
        if label == FAKE:
            file = name.replace("<n5>", f"{k:05d}").replace("<n>", str(k)) + ".JPEG"
            options: dict[str, Any] = {"fake": True, "kinds": kinds}
            kind = "ai"
        else:
            file = f"ILSVRC2012_val_{i + 1:08d}.JPEG" if split == "val" else f"<synset>_{i + 1}.JPEG"
            options, kind = {}, "nature"
        yield Job(
            f"genimage/{folder}/{split}/{kind}/{file}",
            genimage.record_id(label, generator, file),
            category,
            (seed, 1, i),
            options,
        )


def chameleon_jobs(n: int, seed: int) -> Iterator[Job]:
    """Fakes with one faint artifact each; every seventh shows none at all."""
    for i in range(n):
        label = (REAL, FAKE)[i % 2]
        name = uuid.UUID(bytes=np.random.default_rng([seed, 2, i, 1]).bytes(16), version=4)
        options: dict[str, Any] = {}
        if label == FAKE:
            hidden = i // 2 % 7 == 3
            options = {"fake": True, "count": (0, 0) if hidden else (1, 1), "strength": (0.5, 0.8)}
        kind = "real" if label == REAL else "fake"
        category = ("human", "scene", "object", "animal")[i // 2 % 4]
        yield Job(f"chameleon/test/{label ^ 1}_{kind}/{name}.jpg", f"chameleon/{kind}/{name}.jpg", category, (seed, 2, i), options)  # fmt: skip


def cvusa_jobs(n: int, seed: int) -> Iterator[Job]:
    """Aerial images of suburbs and of the country."""
    for i in range(n):
        name = f"{44 + 37 * i:07d}.jpg"
        options = {"variant": ("suburban", "natural")[i % 2]}
        yield Job(f"cvusa/bingmap/19/{name}", f"satellite/real/{name}", "satellite", (seed, 3, i), options)


def vigor_jobs(n: int, seed: int) -> Iterator[Job]:
    """Aerial images of cities, named by their coordinates."""
    for i in range(n):
        city = list(CITIES)[i % len(CITIES)]
        lat, lon = np.array(CITIES[city]) + np.random.default_rng([seed, 4, i, 1]).uniform(-0.02, 0.02, 2)
        name = f"satellite_{lat:.12f}_{lon:.12f}.jpg"
        yield Job(
            f"vigor/{city}/satellite/{name}", f"satellite/real/{name}", "satellite", (seed, 4, i), {"variant": "urban"}
        )  # fmt: skip


def m6doc_jobs(n: int, seed: int) -> Iterator[Job]:
    """Pages of newspapers, papers and magazines; 6:1:3 train, validation and test as in M6Doc."""
    for i in range(n):
        style = PAGE_STYLES[i % len(PAGE_STYLES)]
        split = "train" if i % 10 < 6 else "val" if i % 10 == 6 else "test"
        name = f"{style}_{i:04d}.jpg"
        options = {"variant": style}
        yield Job(f"m6doc/{split}2017/{name}", f"doc/real/{name}", "doc", (seed, 5, i), options, style)


def loki_jobs(per_category: int, seed: int) -> Iterator[Job]:
    """Seven categories; fakes may show kinds that FakeClue-mini never does."""
    for c, (folder, category) in enumerate(LOKI_FOLDERS.items()):
        for i in range(per_category):
            fake = i % 5 >= 2
            path = f"image/{folder}/{i:04d}.jpg"
            options: dict[str, Any] = {"style": "loki"}
            if fake:
                options |= {"fake": True, "kinds": tuple(KINDS), "strength": (0.5, 1.0)}
            page = PAGE_STYLES[i % len(PAGE_STYLES)] if category == "doc" else None
            yield Job(f"loki/{path}", f"loki/{path}", category, (seed, 6, c, i), options, page)


def dmimage_jobs(fakes: int, reals: int, seed: int) -> Iterator[Job]:
    """One folder a generator, three folders of photographs."""
    for g, (folder, (categories, kinds)) in enumerate(DMIMAGE_FAKES.items()):
        for i in range(fakes):
            options = {"fake": True, "kinds": kinds, "style": "dmimage"}
            file = f"{folder}/{i:05d}.jpg"
            yield Job(f"dmimage/{file}", f"dmimage/fake/{file}", categories[i % len(categories)], (seed, 7, g, i), options)  # fmt: skip
    for g, (folder, categories) in enumerate(DMIMAGE_REALS.items()):
        for i in range(reals):
            file = f"{folder}/{i:05d}.jpg"
            yield Job(
                f"dmimage/{file}", f"dmimage/real/{file}", categories[i % len(categories)], (seed, 8, g, i),
                {"style": "dmimage"},
            )  # fmt: skip


def jobs(sizes: Sizes, seed: int) -> list[Job]:
    """All single pictures of all corpora."""
    return [
        *genimage_jobs(sizes.genimage, seed),
        *chameleon_jobs(sizes.chameleon, seed),
        *cvusa_jobs(sizes.cvusa, seed),
        *vigor_jobs(sizes.vigor, seed),
        *m6doc_jobs(sizes.m6doc, seed),
        *loki_jobs(sizes.loki, seed),
        *dmimage_jobs(sizes.dmimage_fakes, sizes.dmimage_reals, seed),
    ]

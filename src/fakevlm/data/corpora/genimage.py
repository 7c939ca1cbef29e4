"""GenImage (Zhu et al., NeurIPS 2023): images of eight generators beside photographs from ImageNet.

<root>/<Generator>/{train,val}/{ai/416_adm_45.PNG,nature/n02099601_123.JPEG}, published as `Midjourney`,
`Stable Diffusion V1.4`, …; or unpacked into folders such as `imagenet_ai_0419_sdv4`, also one level deeper.
"""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from fakevlm.data.corpora.files import SOURCES, Place, listing
from fakevlm.data.records import FAKE, REAL

GENERATORS = ("midjourney", "vqdm", "wukong", "sdv1.4", "sdv1.5", "glide", "biggan", "adm")
# Found in a folder's name that is lower-cased and stripped to letters and digits; the others by their key.
_PATTERNS = {"sdv1.4": r"stablediffusionv?14|sdv1?4", "sdv1.5": r"stablediffusionv?15|sdv1?5"}


def generator_of(folder: str) -> str | None:
    """Return the generator of a folder (`Stable Diffusion V1.4`, `imagenet_ai_0419_sdv4` → `sdv1.4`)."""
    bare = re.sub(r"[^a-z0-9]", "", folder.lower())
    return next((key for key in GENERATORS if re.search(_PATTERNS.get(key, key), bare)), None)


def record_id(label: int, generator: str, file: str) -> str:
    """Return `genimage/{real,fake}/<generator>/<file>`; for a photograph the folder that holds it."""
    return f"genimage/{'real' if label == REAL else 'fake'}/{generator}/{file}"


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (generator, folder that holds `train` and `val`), by generator in the order of `GENERATORS`."""
    folders = []
    for folder in listing(root):
        if generator := generator_of(folder.name):
            inner = [folder, *listing(folder)]
            folders += [(generator, f) for f in inner if (f / "train").is_dir() or (f / "val").is_dir()]
    return sorted(folders, key=lambda pair: GENERATORS.index(pair[0]))


def places(root: Path) -> Iterator[Place]:
    """Yield the folders of images, generator by generator; the category is unknown until `categorize`.

    A photograph may be there under several generators. `ai` holds mostly PNG and `nature` JPEG: the format
    alone gives the label away. Raises `UserError` if no generator's folder holds `train` or `val`.
    """
    folders = split_folders(root)
    if not folders:
        raise SOURCES["genimage"].error(f"no <Generator>/{{train,val}} folder in {root}")
    kinds = (("ai", FAKE), ("nature", REAL))
    for (name, folder), split, (kind, label) in product(folders, ("train", "val"), kinds):
        if (place := folder / split / kind).is_dir():
            fields = {"label": label, "source": "genimage", "generator": name if label == FAKE else None}
            yield Place(place, record_id(label, name, file=""), fields)

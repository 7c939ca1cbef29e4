"""GenImage (Zhu et al., NeurIPS 2023): images of eight generators beside photographs from ImageNet.

    <root>/<Generator>/{train,val}/ai/416_adm_45.PNG                    class index, generator, number
    <root>/<Generator>/{train,val}/nature/n02099601_123.JPEG            ImageNet synset (train)
    <root>/<Generator>/{train,val}/nature/ILSVRC2012_val_00012345.JPEG  (val)

with Generator of `PUBLISHED`. The archives unpack to names such as `imagenet_ai_0419_sdv4`; those are
understood too, also one level deeper. The same photograph can be there under several generators: `collect`
finds copies by content. In the real corpus `ai` holds mostly PNG and `nature` JPEG, so the file format
alone gives the label away.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import Drawn, images, load, need_folder
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError

WHERE = "get GenImage from https://github.com/GenImage-Dataset/GenImage and unpack it there"

# The published folder of each generator.
PUBLISHED = {
    "midjourney": "Midjourney",
    "vqdm": "VQDM",
    "wukong": "Wukong",
    "sdv1.4": "Stable Diffusion V1.4",
    "sdv1.5": "Stable Diffusion V1.5",
    "glide": "GLIDE",
    "biggan": "BigGAN",
    "adm": "ADM",
}
GENERATORS = tuple(PUBLISHED)
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
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        generator = generator_of(folder.name)
        if generator is not None:
            inner = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
            folders += [(generator, f) for f in inner if (f / "train").is_dir() or (f / "val").is_dir()]
    return sorted(folders, key=lambda pair: GENERATORS.index(pair[0]))


def read(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream the images, generator by generator; the category is unknown until `categorize`.

    Raises:
        UserError: the folder is missing or holds no generator's folder with `train` or `val`.
    """
    need_folder(root, "GenImage", WHERE)
    folders = split_folders(root)
    if not folders:
        raise UserError(f"GenImage: no <Generator>/{{train,val}} folder in {root}", WHERE)
    for generator, folder in folders:
        for split in ("train", "val"):
            for kind, label in (("ai", FAKE), ("nature", REAL)):
                fields = {"label": label, "source": "genimage"}
                fields["generator"] = generator if label == FAKE else None
                for file in images(folder / split / kind):
                    yield from load(file, record_id(label, generator, file.name), drawn, **fields)

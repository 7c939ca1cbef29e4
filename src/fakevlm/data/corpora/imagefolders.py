"""Corpora of image files in a folder `<root>`: GenImage, Chameleon, DMimage, CVUSA, VIGOR; their reader."""

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from fakevlm.data.corpora.files import SOURCES, Drawn, Unusable, images, inside, listing
from fakevlm.data.records import FAKE, REAL, Record

GENERATORS = ("midjourney", "vqdm", "wukong", "sdv1.4", "sdv1.5", "glide", "biggan", "adm")
# Found in a folder's name that is lower-cased and stripped to letters and digits; the others by their key.
_PATTERNS = {"sdv1.4": r"stablediffusionv?14|sdv1?4", "sdv1.5": r"stablediffusionv?15|sdv1?5"}
_AERIAL = {"label": REAL, "source": "satellite", "category": "satellite"}


class Place(NamedTuple):
    """What is read of a corpus: an image file that its lists name, or a folder of images."""

    path: Path
    id: str  # the record's, or what the ids of a folder's images begin with
    fields: dict[str, Any]  # of its records


def read_images(
    corpus: str, places: Callable[[Path], Iterator[Place]], root: Path, drawn: Drawn | None = None
) -> Iterator[Record | Unusable]:
    """Stream the images at the places of a corpus, in order. Files that are not drawn are not read.

    A listed image that is missing or outside of `root` is unusable, drawn or not.
    """
    for path, id, fields in places(root):
        files = {path: id}
        if path.is_dir():
            files = {file: id + file.relative_to(path).as_posix() for file in images(path)}
        elif not inside(path.relative_to(root).as_posix()) or not path.is_file():
            yield Unusable(corpus, path.relative_to(root).as_posix(), "named in a list but missing")
            continue
        for file, id in files.items():
            if drawn is None or drawn(id):
                yield Record(id=id, image=file.read_bytes(), **fields)


def generator_of(folder: str) -> str | None:
    """Return the generator of a folder (`Stable Diffusion V1.4`, `imagenet_ai_0419_sdv4` → `sdv1.4`)."""
    bare = re.sub(r"[^a-z0-9]", "", folder.lower())
    return next((key for key in GENERATORS if re.search(_PATTERNS.get(key, key), bare)), None)


def genimage_id(label: int, generator: str, file: str) -> str:
    """Return `genimage/{real,fake}/<generator>/<file>`; for a photograph the folder that holds it."""
    return f"genimage/{'real' if label == REAL else 'fake'}/{generator}/{file}"


def genimage_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (generator, folder that holds `train` and `val`), by generator in the order of `GENERATORS`."""
    folders = []
    for folder in listing(root):
        if generator := generator_of(folder.name):
            inner = [folder, *listing(folder)]
            folders += [(generator, f) for f in inner if (f / "train").is_dir() or (f / "val").is_dir()]
    return sorted(folders, key=lambda pair: GENERATORS.index(pair[0]))


def genimage(root: Path) -> Iterator[Place]:
    """Yield the folders of GenImage (Zhu et al., NeurIPS 2023): eight generators, each beside photographs.

    `<root>/<Generator>/{train,val}/{ai/416_adm_45.PNG,nature/n02099601_123.JPEG}`. Generators are published
    as `Midjourney`, `Stable Diffusion V1.4`, …; or unpacked into folders such as `imagenet_ai_0419_sdv4`,
    also one level deeper. The category is unknown until stage categorize. A photograph may be there under
    several generators. `ai` holds mostly PNG and `nature` JPEG: the format alone gives the label away.
    Raises `UserError` if no generator's folder holds `train` or `val`.
    """
    folders = genimage_folders(root)
    if not folders:
        raise SOURCES["genimage"].error(f"no <Generator>/{{train,val}} folder in {root}")
    kinds = (("ai", FAKE), ("nature", REAL))
    for (name, folder), split, (kind, label) in product(folders, ("train", "val"), kinds):
        if (place := folder / split / kind).is_dir():
            fields = {"label": label, "source": "genimage", "generator": name if label == FAKE else None}
            yield Place(place, genimage_id(label, name, file=""), fields)


def chameleon(root: Path) -> Iterator[Place]:
    """Yield the folders of Chameleon (Yan et al., ICLR 2025), fakes that people took for photographs.

    `<root>/test/{0_real,1_fake}/<file>.jpg`; `<root>` may also be the `test` folder. Neither generator nor
    category is known. Raises `UserError` if a folder is missing.
    """
    base = root / "test" if (root / "test").is_dir() else root
    for name, kind, label in (("0_real", "real", REAL), ("1_fake", "fake", FAKE)):
        folder = SOURCES["chameleon"].folder(base / name)
        yield Place(folder, f"chameleon/{kind}/", {"label": label, "source": "chameleon"})


def dmimage(root: Path) -> Iterator[Place]:
    """Yield the folders of DMimage (Corvi et al., ICASSP 2023): 30 generators, about 1,000 images each.

    `<root>/real_ucid/…`, `<root>/biggan_256/…`: a folder whose name starts with `real` is real, every other
    one a generator, whose name it gives. Raises `UserError` if there are no real or no generated images.
    """
    folders = [folder for folder in listing(root) if folder.is_dir()]
    generators = [folder for folder in folders if not folder.name.startswith("real")]
    if not generators or generators == folders:
        missing = "real_*" if generators == folders else "generator"
        raise SOURCES["dmimage"].error(f"no {missing} folder in {root}")
    for folder in folders:
        label, kind, generator = (FAKE, "fake", folder.name) if folder in generators else (REAL, "real", None)
        fields = {"label": label, "source": "dmimage", "generator": generator, "split": "test"}
        yield Place(folder, f"dmimage/{kind}/{folder.name}/", fields)


def cvusa(root: Path) -> Iterator[Place]:
    """Yield the aerial images, all real, of CVUSA (Workman et al., ICCV 2015; Zhai et al., CVPR 2017).

    `<root>/splits/{train,val}-19zl.csv`, without header, have rows `bingmap/19/0044775.jpg,streetview/…`;
    without `splits` every image in `bingmap/19` is read. Raises `UserError` if the folder of aerial images is
    missing, or a list is no text or names none of them.
    """
    folder = SOURCES["cvusa"].folder(root / "bingmap" / "19")
    names: dict[str, None] = {}
    for file in listing(root / "splits", "*.csv"):
        listed = re.findall(r"bingmap[/\\]19[/\\]([^,\"\r\n]*[^,\"\s])", SOURCES["cvusa"].text(file))
        if not listed:
            raise SOURCES["cvusa"].error(f"{file} names no image of bingmap/19")
        names.update(dict.fromkeys(listed))
    if not names:
        yield Place(folder, "satellite/real/", _AERIAL)
    for name in names:
        yield Place(root / f"bingmap/19/{name}", f"satellite/real/{name}", _AERIAL)


def vigor(root: Path) -> Iterator[Place]:
    """Yield the aerial images, all real, of VIGOR (Zhu et al., CVPR 2021), city by city.

    `<root>/<City>/satellite/satellite_41.87337787840_-87.69119741060.png`. Neighbouring images overlap, so
    those of a square of about a kilometre are one `group`. Raises `UserError` if no city's folder is there.
    """
    folders = [folder for folder in listing(root, "*/satellite") if folder.is_dir()]
    if not folders:
        raise SOURCES["vigor"].error(f"no <City>/satellite folder in {root}")
    for folder in folders:
        for file in images(folder):
            at = re.fullmatch(r"satellite_(-?\d+\.\d+)_(-?\d+\.\d+)", file.stem)
            group = f"vigor/{folder.parent.name}/{float(at[1]):.2f},{float(at[2]):.2f}" if at else ""
            yield Place(file, f"satellite/real/{file.name}", _AERIAL | {"group": group})

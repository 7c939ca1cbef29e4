"""Corpora of image files in folders: Chameleon, DMimage, CVUSA and VIGOR. `<root>` is the corpus's folder."""

import re
from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import SOURCES, Place, images, listing
from fakevlm.data.records import FAKE, REAL

_AERIAL = {"label": REAL, "source": "satellite", "category": "satellite"}


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

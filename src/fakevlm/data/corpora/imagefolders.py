"""Corpora of image files in folders: Chameleon, DMimage, CVUSA and VIGOR. `<root>` is the corpus's folder."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import SOURCES, Drawn, Unusable, appledouble, images, load
from fakevlm.data.records import FAKE, REAL, Record

VIGOR_CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")


def read_chameleon(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream Chameleon (Yan et al., ICLR 2025), fakes that people took for photographs: real, then fake.

    `<root>/test/{0_real,1_fake}/<file>.jpg`; `<root>` may also be the `test` folder. Neither generator nor
    category is known. Ids are `chameleon/{real,fake}/<file>`. Raises `UserError` if a folder is missing.
    """
    base = root / "test" if (root / "test").is_dir() else root
    for name, kind, label in (("0_real", "real", REAL), ("1_fake", "fake", FAKE)):
        folder = SOURCES["chameleon"].folder(base / name)
        for file in images(folder):
            path = f"chameleon/{kind}/{file.relative_to(folder).as_posix()}"
            yield from load(file, path, drawn, label=label, source="chameleon")


def read_dmimage(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream DMimage (Corvi et al., ICASSP 2023): 30 generators, about 1,000 images each. A benchmark only.

    `<root>/real_ucid/…`, `<root>/biggan_256/…`: a folder whose name starts with `real` is real, every other
    one a generator, whose name it gives. Raises `UserError` if there are no real or no generated images.
    """
    folders = sorted(folder for folder in root.glob("[!.]*") if folder.is_dir())
    generators = [folder for folder in folders if not folder.name.startswith("real")]
    if not generators or generators == folders:
        missing = "real_*" if generators == folders else "generator"
        raise SOURCES["dmimage"].error(f"no {missing} folder in {root}")
    for folder in folders:
        label, kind, generator = (FAKE, "fake", folder.name) if folder in generators else (REAL, "real", None)
        for file in images(folder):
            path = f"dmimage/{kind}/{folder.name}/{file.relative_to(folder).as_posix()}"
            fields = {"label": label, "source": "dmimage", "generator": generator, "split": "test"}
            yield from load(file, path, drawn, **fields)


def cvusa_listed(root: Path) -> list[str]:
    """Return the aerial images that CVUSA's split lists name, each once, in order."""
    names: dict[str, None] = {}
    for file in sorted(p for p in (root / "splits").glob("*.csv") if not appledouble(p.name)):
        with file.open(newline="", encoding="utf-8-sig") as rows:
            for row in csv.reader(rows):
                names.update((cell.strip(), None) for cell in row if cell.strip().startswith("bingmap/19/"))
    return list(names)


def read_cvusa(root: Path, drawn: Drawn | None = None) -> Iterator[Record | Unusable]:
    """Stream the aerial images, all real, of CVUSA (Workman et al., ICCV 2015; Zhai et al., CVPR 2017).

    `<root>/splits/{train,val}-19zl.csv`, without header, have rows `bingmap/19/0044775.jpg,streetview/…`;
    without `splits` every image in `bingmap/19` is read. A missing image is unusable, drawn or not. Raises
    `UserError` if the folder of aerial images is missing.
    """
    folder = SOURCES["cvusa"].folder(root / "bingmap" / "19")
    for name in cvusa_listed(root) or [f"bingmap/19/{file.name}" for file in images(folder)]:
        file = root / name
        if not file.is_file():
            yield Unusable("cvusa", name, "listed in splits but missing")
            continue
        path = f"satellite/real/{file.name}"
        yield from load(file, path, drawn, label=REAL, source="satellite", category="satellite")


def read_vigor(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream the aerial images, all real, of VIGOR (Zhu et al., CVPR 2021), city by city.

    `<root>/<City>/satellite/satellite_41.87337787840_-87.69119741060.png`. Neighbouring images overlap, so
    those of a square of about a kilometre are one `group`. Raises `UserError` if no city's folder is there.
    """
    folders = sorted(p for p in root.glob("*/satellite") if p.is_dir())
    if not folders:
        raise SOURCES["vigor"].error(f"no <City>/satellite folder in {root}")
    for folder in folders:
        for file in images(folder):
            at = re.fullmatch(r"satellite_(-?\d+\.\d+)_(-?\d+\.\d+)", file.stem)
            group = f"vigor/{folder.parent.name}/{float(at[1]):.2f},{float(at[2]):.2f}" if at else ""
            fields = {"label": REAL, "source": "satellite", "category": "satellite", "group": group}
            yield from load(file, f"satellite/real/{file.name}", drawn, **fields)

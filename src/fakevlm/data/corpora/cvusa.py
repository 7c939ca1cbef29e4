"""CVUSA (Workman et al., ICCV 2015; subset of Zhai et al., CVPR 2017): ground and aerial pairs from the USA.

    <root>/splits/{train,val}-19zl.csv   without header: bingmap/19/0044775.jpg,streetview/panos/0044775.jpg,…
    <root>/bingmap/19/0044775.jpg

Only the aerial images are read, all real; without `splits` every image in `bingmap/19`.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import Drawn, Unusable, appledouble, images, load, need_folder
from fakevlm.data.records import REAL, Record

WHERE = "ask for CVUSA at https://mvrl.cse.wustl.edu/datasets/cvusa and unpack it there"


def listed(root: Path) -> list[str]:
    """Return the aerial images that the split lists name, each once, in order."""
    names: dict[str, None] = {}
    for file in sorted(p for p in (root / "splits").glob("*.csv") if not appledouble(p.name)):
        with file.open(newline="", encoding="utf-8-sig") as rows:
            for row in csv.reader(rows):
                names.update((cell.strip(), None) for cell in row if cell.strip().startswith("bingmap/19/"))
    return list(names)


def read(root: Path, drawn: Drawn | None = None) -> Iterator[Record | Unusable]:
    """Stream the aerial images; one that a list names and the folder lacks is unusable, drawn or not.

    Raises:
        UserError: the folder of aerial images is missing.
    """
    folder = need_folder(root / "bingmap" / "19", "CVUSA", WHERE)
    for name in listed(root) or [f"bingmap/19/{file.name}" for file in images(folder)]:
        file = root / name
        if not file.is_file():
            yield Unusable("cvusa", name, "listed in splits but missing")
            continue
        path = f"satellite/real/{file.name}"
        yield from load(file, path, drawn, label=REAL, source="satellite", category="satellite")

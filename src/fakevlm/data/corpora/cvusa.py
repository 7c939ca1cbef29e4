"""CVUSA (Workman et al., ICCV 2015; subset of Zhai et al., CVPR 2017): ground and aerial pairs from the USA.

Licence: research only, by request (https://mvrl.cse.wustl.edu/datasets/cvusa). 35,532 pairs for training and
8,884 for testing; only the aerial images (zoom 19) are read, all real.

Layout::

    <root>/splits/train-19zl.csv        rows without header:
    bingmap/19/0044775.jpg,streetview/panos/0044775.jpg,… <root>/splits/val-19zl.csv
    <root>/bingmap/19/0044775.jpg

Without `splits` every image in `bingmap/19` is read.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from fakevlm.data.corpora.files import Quarantine, appledouble, images, need_folder
from fakevlm.data.records import REAL, Record

WHERE = "ask for CVUSA at https://mvrl.cse.wustl.edu/datasets/cvusa and unpack it there"


def listed(root: Path) -> list[str]:
    """The aerial images that the split lists name, each once, in order."""
    names: dict[str, None] = {}
    for file in sorted(p for p in (root / "splits").glob("*.csv") if not appledouble(p.name)):
        with file.open(newline="", encoding="utf-8-sig") as rows:
            for row in csv.reader(rows):
                names.update((cell.strip(), None) for cell in row if cell.strip().startswith("bingmap/19/"))
    return list(names)


def read(
    root: Path, quarantine: Quarantine | None = None, drawn: Callable[[str], bool] | None = None
) -> Iterator[Record]:
    """Stream the aerial images that are `drawn` by their ids; others are not read.

    An image that a list names and the folder lacks goes to quarantine, drawn or not.

    Raises:
        UserError: the folder of aerial images is missing.
    """
    place = need_folder(root / "bingmap" / "19", "CVUSA", WHERE)
    names = listed(root)
    for name in names or [f"bingmap/19/{file.name}" for file in images(place)]:
        file = root / name
        if not file.is_file():
            if quarantine is not None:
                quarantine.add("cvusa", name, "listed in splits but missing")
            continue
        path = f"satellite/real/{file.name}"
        if drawn and not drawn(path):
            continue
        yield Record(
            id=path, image=file.read_bytes(), label=REAL, source="satellite", item=path, category="satellite"
        )

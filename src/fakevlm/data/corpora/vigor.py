"""VIGOR (Zhu et al., CVPR 2021): panoramas and the aerial images around them in four cities.

    <root>/{Chicago,NewYork,SanFrancisco,Seattle}/satellite/satellite_41.87337878187409_-87.69119741060825.png

Only the aerial images are read, all real.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import Drawn, images, load, need_folder
from fakevlm.data.records import REAL, Record
from fakevlm.errors import UserError

WHERE = "ask for VIGOR at https://github.com/Jeff-Zilence/VIGOR and unpack it there"
CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")


def _place(city: str, stem: str) -> str | None:
    """Return the square of about a kilometre that holds an image: neighbours overlap."""
    match = re.fullmatch(r"satellite_(-?\d+\.\d+)_(-?\d+\.\d+)", stem)
    return f"vigor/{city}/{float(match[1]):.2f},{float(match[2]):.2f}" if match else None


def read(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream the aerial images, city by city.

    Raises:
        UserError: the folder is missing or no city in it has a `satellite` folder.
    """
    need_folder(root, "VIGOR", WHERE)
    folders = sorted(p for p in root.glob("*/satellite") if p.is_dir())
    if not folders:
        raise UserError(f"VIGOR: no <City>/satellite folder in {root}", WHERE)
    for folder in folders:
        for file in images(folder):
            fields = {"label": REAL, "source": "satellite", "category": "satellite"}
            fields["item"] = _place(folder.parent.name, file.stem) or ""
            yield from load(file, f"satellite/real/{file.name}", drawn, **fields)

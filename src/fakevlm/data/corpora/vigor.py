"""VIGOR (Zhu et al., CVPR 2021): panoramas and the aerial images around them in four cities.

Licence: research only, by request (https://github.com/Jeff-Zilence/VIGOR). 90,618 aerial images; only those
are read, all real.

Layout::

    <root>/{Chicago,NewYork,SanFrancisco,Seattle}/satellite/satellite_41.87337878187409_-87.69119741060825.png
    <root>/<City>/panorama/<id>,<lat>,<lon>,.jpg           not read
    <root>/splits/…                                        not read
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from fakevlm.data.corpora.files import images, need_folder
from fakevlm.data.records import REAL, Record
from fakevlm.errors import UserError

WHERE = "ask for VIGOR at https://github.com/Jeff-Zilence/VIGOR and unpack it there"
CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")


def _place(city: str, stem: str) -> str | None:
    """Return the square of about a kilometre that holds an image: neighbours overlap."""
    named = re.fullmatch(r"satellite_(-?\d+\.\d+)_(-?\d+\.\d+)", stem)
    return f"vigor/{city}/{float(named[1]):.2f},{float(named[2]):.2f}" if named else None


def read(root: Path, drawn: Callable[[str], bool] | None = None) -> Iterator[Record]:
    """Streams the aerial images that are `drawn` by their ids, city by city; others are not read.

    Raises:
        UserError: the folder is missing or no city in it has a `satellite` folder.
    """
    need_folder(root, "VIGOR", WHERE)
    places = sorted(p for p in root.glob("*/satellite") if p.is_dir())
    if not places:
        raise UserError(f"VIGOR: no <City>/satellite folder in {root}", WHERE)
    for place in places:
        for file in images(place):
            path = f"satellite/real/{file.name}"
            if drawn and not drawn(path):
                continue
            yield Record(
                id=path,
                image=file.read_bytes(),
                label=REAL,
                source="satellite",
                item=_place(place.parent.name, file.stem) or path,
                category="satellite",
            )

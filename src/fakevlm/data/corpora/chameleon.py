"""Chameleon (Yan et al., ICLR 2025): fakes that people took for photographs.

Licence: research only, by request from the authors (https://github.com/shilinyan99/AIDE); test images only,
about 26,000.

Layout::

    <root>/test/0_real/<file>.jpg
    <root>/test/1_fake/<uuid>.jpg

`<root>` may also be the `test` folder itself. FakeClue takes part of it and names it
`chameleon/{real,fake}/<file>`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from fakevlm.data.corpora.files import images_below, need_folder
from fakevlm.data.records import FAKE, REAL, Record

WHERE = "ask its authors for Chameleon (https://github.com/shilinyan99/AIDE) and unpack it there"


def read(root: Path, drawn: Callable[[str], bool] | None = None) -> Iterator[Record]:
    """Stream the real, then the generated images that are `drawn` by their ids; others are not read.

    Neither generator nor category is known.

    Raises:
        UserError: a folder is missing.
    """
    need_folder(root, "Chameleon", WHERE)
    base = root / "test" if (root / "test").is_dir() else root
    for folder, kind, label in (("0_real", "real", REAL), ("1_fake", "fake", FAKE)):
        place = need_folder(base / folder, "Chameleon", WHERE)
        for file in images_below(place):
            path = f"chameleon/{kind}/{file.relative_to(place).as_posix()}"
            if drawn is None or drawn(path):
                yield Record(id=path, image=file.read_bytes(), label=label, source="chameleon", item=path)

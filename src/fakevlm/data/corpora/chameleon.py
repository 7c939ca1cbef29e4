"""Chameleon (Yan et al., ICLR 2025): fakes that people took for photographs.

    <root>/test/0_real/<file>.jpg
    <root>/test/1_fake/<uuid>.jpg

`<root>` may also be the `test` folder itself. FakeClue names its images `chameleon/{real,fake}/<file>`.
"""

from collections.abc import Iterator
from pathlib import Path

from fakevlm.data.corpora.files import Drawn, images, load, need_folder
from fakevlm.data.records import FAKE, REAL, Record

WHERE = "ask its authors for Chameleon (https://github.com/shilinyan99/AIDE) and unpack it there"


def read(root: Path, drawn: Drawn | None = None) -> Iterator[Record]:
    """Stream the real, then the generated images; neither generator nor category is known.

    Raises:
        UserError: a folder is missing.
    """
    need_folder(root, "Chameleon", WHERE)
    base = root / "test" if (root / "test").is_dir() else root
    for name, kind, label in (("0_real", "real", REAL), ("1_fake", "fake", FAKE)):
        folder = need_folder(base / name, "Chameleon", WHERE)
        for file in images(folder):
            path = f"chameleon/{kind}/{file.relative_to(folder).as_posix()}"
            yield from load(file, path, drawn, label=label, source="chameleon")

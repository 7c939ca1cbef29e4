"""Make record shards of the released FakeClue's test split, for the task `fakeclue_released`.

python integrations/lmms_eval/fakeclue/convert.py FOLDER

FOLDER holds data_json/test.json and test.zip, or the unpacked images.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from fakevlm import paths
from fakevlm.data.corpora.fakeclue import read
from fakevlm.data.corpora.files import Unusable
from fakevlm.data.records import Record, write_records
from fakevlm.errors import UserError


def convert(release: Path, out: Path) -> int:
    """Write the shards; return how many images they hold.

    Raises:
        UserError: a file is missing, or a row cannot be read.
    """
    unusable: list[Unusable] = []

    def records() -> Iterator[Record]:
        for row in read(release, splits=["test"]):
            if isinstance(row, Record):
                yield row
            else:
                unusable.append(row)

    written = write_records(records(), out)
    if unusable:
        raise UserError(
            f"{len(unusable)} rows of {release} cannot be read, the first: {tuple(unusable[0])}",
            "fetch the release again",
        )
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", type=Path, help="folder of the release")
    try:
        out = paths.runs("lmms_eval", "fakeclue", "test")
        print(f"{convert(parser.parse_args().release, out)} images in {out}")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

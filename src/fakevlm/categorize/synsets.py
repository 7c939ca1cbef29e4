"""Map ImageNet's classes to the paper's four categories: animal, human, object, scene (section 3.2).

Nobody has published such a mapping. `synsets.csv` is ours for the 1,000 classes of ImageNet-1k; of
ImageNet-22k's, `persons.txt` lists the people and WordNet's own files decide the rest (docs/corpora.md).
"""

import csv
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import Record
from fakevlm.errors import UserError

FOUR = ("animal", "human", "object", "scene")
_HERE = files("fakevlm.categorize")

# WordNet 3.0 numbers its nouns file by file, as [first, end): noun.animal; noun.location and noun.object
# (landforms, waters); noun.person.
_RANGES = (
    ("animal", 1_313_093, 2_666_196),
    ("scene", 8_489_000, 9_483_700),
    ("human", 9_483_700, 11_408_500),
)
_ROOTS = {7846: "human", 15388: "animal"}  # "person" and "animal" themselves are in noun.Tops

# ImageNet's file names (n02099601_12.JPEG), and those of GenImage's fakes, where the number before the
# generator is the class (416_adm_45.PNG, VQDM_1000_200_00_016_vqdm_00012.png).
_NATURE = re.compile(r"^(n\d{8})_\d+\.", re.IGNORECASE)
_GENERATED = re.compile(
    r"(?:^|_)(\d{1,3})_(?:adm|biggan|glide|midjourney|sdv4|sdv5|vqdm|wukong)_\d+\.", re.IGNORECASE
)


@cache
def table() -> tuple[dict[str, str], ...]:
    """Return the rows of `synsets.csv` in class order: index, synset, lemma, category."""
    return tuple(csv.DictReader((_HERE / "synsets.csv").read_text(encoding="utf-8").splitlines()))


@cache
def persons() -> frozenset[str]:
    """Return the synsets of ImageNet-22k's classes of people."""
    return frozenset((_HERE / "persons.txt").read_text(encoding="utf-8").split())


@cache
def _by_synset() -> dict[str, str]:
    return dict.fromkeys(persons(), "human") | {row["synset"]: row["category"] for row in table()}


def lexicographer_category(synset: str) -> str:
    """Return a WordNet 3.0 noun synset's category by its file; `UserError` unless like `n01440764`."""
    if not re.fullmatch(r"n\d{8}", synset):
        what = f"{synset!r} is not a WordNet noun synset (n01440764)"
        raise UserError(what, "use a model with ImageNet labels")
    number = int(synset[1:])
    default = _ROOTS.get(number, "object")
    return next((category for category, first, end in _RANGES if first <= number < end), default)


def synset_category(synset: str) -> str:
    """Return the category of a synset: by `synsets.csv` and `persons.txt`, else by WordNet's files."""
    return _by_synset().get(synset) or lexicographer_category(synset)


def membership(labels: Sequence[str]) -> np.ndarray:
    """Return the matrix (n, 4) float32 that sums class probabilities into those of `FOUR`.

    `labels` are the n classes of a model in order: synsets, or the four categories themselves.
    """
    categories = [label if label in FOUR else synset_category(label) for label in labels]
    return np.array([[category == name for name in FOUR] for category in categories], np.float32)


def _stated(record: Record, pattern: re.Pattern[str]) -> str | None:
    match = pattern.search(record.path.rsplit("/", 1)[-1])
    return match[1] if match and record.source == "genimage" else None


def nature_category(record: Record) -> str | None:
    """Return the category that the file name of a GenImage photograph states by its synset, else None."""
    synset = _stated(record, _NATURE)
    return synset_category(synset.lower()) if synset else None


def generated_category(record: Record) -> str | None:
    """Return the category that the file name of a GenImage fake states by its class number, else None.

    Use it to measure, never to train or predict: the paper's classifier saw pixels only.
    """
    number = _stated(record, _GENERATED)
    return table()[int(number)]["category"] if number else None


def true_category(record: Record, ground_truths: Mapping[str, GroundTruth]) -> str | None:
    """Return a record's true category by its ground truth, else by its file name; None if neither says."""
    ground_truth = ground_truths.get(record.path)
    if ground_truth and ground_truth.category in FOUR:
        return ground_truth.category
    return nature_category(record) or generated_category(record)

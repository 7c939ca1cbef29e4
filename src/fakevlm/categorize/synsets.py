"""From ImageNet's classes to the paper's four categories: animal, human, object, scene (section 3.2).

Nobody has published such a mapping, so it is data here, open to correction: `synsets.csv`, one row for each of the 1,000
classes of ImageNet-1k. How it was decided:

* animal: the first 398 classes, which ImageNet orders by WordNet number: everything in WordNet's file of animals.
* human: the three synsets of persons that ImageNet-1k has (ballplayer, groom, scuba diver).
* scene: a place one can stand in or look across. Landforms and waters (alp, seashore, volcano); buildings and structures
  that fill the view (barn, church, viaduct, dam, stone wall); rooms and shops seen from inside (library, bakery, stage).
  Vehicles, furniture and single things stay objects, however large (mobile home, totem pole, radio telescope).
* object: the rest, food and plants among them.

ImageNet-1k knows next to no people. A model with the 22k head does, and its 21,841 synsets are too many for such a table:
people are what stands below "person" in WordNet (`persons.txt`, made by `wordnet`), and for the rest WordNet's own division
into files decides (`lexicographer_category`).
"""

import csv
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np

from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import Record
from fakevlm.errors import UserError

FOUR = ("animal", "human", "object", "scene")

# WordNet 3.0 numbers its nouns file by file. These are the files that matter, as [first, end): noun.animal;
# noun.location and noun.object (landforms, waters); noun.person.
_RANGES = (
    ("animal", 1_313_093, 2_666_196),
    ("scene", 8_489_000, 9_483_700),
    ("human", 9_483_700, 11_408_500),
)
_ROOTS = {7846: "human", 15388: "animal"}  # "person" and "animal" themselves stand in noun.Tops

# ImageNet's own file names (n02099601_12.JPEG), and GenImage's generated ones, whose number before the generator's name
# is the class (416_adm_45.PNG, VQDM_1000_200_00_016_vqdm_00012.png).
_NATURE = re.compile(r"^(n\d{8})_\d+\.", re.IGNORECASE)
_GENERATED = re.compile(
    r"(?:^|_)(\d{1,3})_(?:adm|biggan|glide|midjourney|sdv4|sdv5|vqdm|wukong)_\d+\.", re.IGNORECASE
)


@cache
def table() -> tuple[dict[str, str], ...]:
    """The rows of `synsets.csv` in class order: index, synset, lemma, category."""
    text = files("fakevlm.categorize").joinpath("synsets.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def persons() -> frozenset[str]:
    """The classes of ImageNet-22k that are people: `persons.txt`, made by `wordnet`."""
    return frozenset(files("fakevlm.categorize").joinpath("persons.txt").read_text(encoding="utf-8").split())


@cache
def _by_synset() -> dict[str, str]:
    people = dict.fromkeys(persons(), "human")
    return people | {row["synset"]: row["category"] for row in table()}


def lexicographer_category(synset: str) -> str:
    """The category of any WordNet 3.0 noun synset by the file that its number falls in.

    Args:
        synset: `n` and eight digits.

    Raises:
        UserError: not a noun synset.
    """
    if not re.fullmatch(r"n\d{8}", synset):
        raise UserError(
            f"{synset!r} is not a WordNet noun synset (n01440764)", "use a model with ImageNet labels"
        )
    number = int(synset[1:])
    for category, first, end in _RANGES:
        if first <= number < end:
            return category
    return _ROOTS.get(number, "object")


def synset_category(synset: str) -> str:
    """The category of a synset: by the tables where they list it, else by WordNet's files."""
    return _by_synset().get(synset) or lexicographer_category(synset)


def membership(labels: Sequence[str]) -> np.ndarray:
    """Which class belongs to which category, as a matrix that sums class probabilities into category probabilities.

    Args:
        labels: the classes of a model in order: synsets, or the four categories themselves.

    Returns:
        (len(labels), 4) float32 of zeros and ones, each row with a single one; columns as in `FOUR`.
    """
    matrix = np.zeros((len(labels), len(FOUR)), np.float32)
    for row, label in enumerate(labels):
        category = label if label in FOUR else synset_category(label)
        matrix[row, FOUR.index(category)] = 1
    return matrix


def nature_category(record: Record) -> str | None:
    """The category that a GenImage photograph's file name states by its synset; None for everything else."""
    match = _NATURE.match(record.path.rsplit("/", 1)[-1])
    return synset_category(match[1].lower()) if match and record.source == "genimage" else None


def generated_category(record: Record) -> str | None:
    """The category of the class that a GenImage fake was asked for, by the class number in its file name.

    It serves as truth to measure against, never to train on or to predict from: the paper's classifier saw pixels only.
    """
    match = _GENERATED.search(record.path.rsplit("/", 1)[-1])
    return table()[int(match[1])]["category"] if match and record.source == "genimage" else None


def true_category(record: Record, truths: dict[str, GroundTruth]) -> str | None:
    """What a record shows, where anything says so: the miniature's truth, else the file name's synset or class."""
    known = truths.get(record.path)
    if known and known.category in FOUR:
        return known.category
    return nature_category(record) or generated_category(record)

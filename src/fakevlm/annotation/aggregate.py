"""The aggregation A = M(A1, A2, A3) of candidate captions (paper section 3.2, Eq. 1).

What the paper asks of M: extract the points common to several models; drop observations of a single model, unless they are
critical (glaring artifacts); order the rest into texture, geometry and lighting; write a fixed format. The paper gives that
to a language model it does not name (`aggregate_llm` does so too). Here sentence embeddings and clustering do it, on any
free text, offline:

1. split captions into statements (`clauses`), embed each distinct one once, subtract the mean of general descriptions
   (`descriptions.yaml`) of the category, so that what all statements about an animal share does not count as agreement;
2. drop verdicts and remarks, and statements of the wrong polarity: on a fake only what is wrong, on a real image only
   what is plausible (`polarity`, and the nearest description where words do not say);
3. cluster across annotators (average linkage, cosine at least `similarity`); keep clusters with `min_annotators` distinct
   witnesses, and single statements near a critical description; say each in its medoid's words, under the nearest family.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import islice
from typing import Protocol

import numpy as np
import yaml

from fakevlm.annotation.clauses import split
from fakevlm.annotation.polarity import polarity
from fakevlm.data.records import FAKE, REAL
from fakevlm.model.sentence_encoder import encode

FAMILIES = ("texture", "geometry", "lighting")
VERDICT = {FAKE: "This is a fake image.", REAL: "This is a real image."}
NOTHING = {
    FAKE: "No visible artifact explains it.",
    REAL: "Nothing in it speaks against a photograph.",
}
# By how much a statement with words of approval or disapproval must resemble a remark to be taken for one.
_REMARK_MARGIN = 0.1
# How much a statement without such words must resemble some description of the label's kind to be taken for a clue.
_LEAST_LIKENESS = 0.2
_EMPHASIS = re.compile(
    r"\b(?:impossibl[ey]|glaring\w*|severe\w*|gross(?:ly)?|blatant\w*|absurd\w*)\b", re.IGNORECASE
)
_EMPHASIS_BONUS = 0.1
_SLIGHT = re.compile(
    r"\b(?:slight\w*|subtle\w*|minor|mild\w*|faint\w*|a little|marginal\w*)\b", re.IGNORECASE
)
_CHUNK = 400  # images embedded together: at 24 statements each, no two alike, 15 MB of embeddings
_KEPT = 20_000  # statements whose embeddings are kept for the next chunk, which says much of it again: 30 MB


@dataclass(frozen=True, slots=True)
class Candidates:
    """The captions of one image: by annotator, only those that came out well (see `Outcome`)."""

    id: str
    category: str
    label: int
    captions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Point:
    """One kept observation: its family, its words, how many annotators made it, whether it was kept as critical."""

    family: str
    statement: str
    witnesses: int
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The aggregate A of one image.

    Attributes:
        id: the record's.
        text: the answer in the fixed format; empty if there is none.
        points: what stands in it.
        outcome: `ok`; else why there is no answer, as `protocol.Outcome` has it, or `invalid`: none that fits the schema.
        problem: in that case, what was wrong.
    """

    id: str
    text: str
    points: tuple[Point, ...]
    outcome: str = "ok"
    problem: str = ""


class Aggregator(Protocol):
    """M of Eq. 1."""

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """One annotation an image, in order.

        Args:
            images: to be walked through any number of times.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Clue:
    """A statement that is a clue: its words, its centred embedding (d,), its family, whether it is glaring."""

    text: str
    row: np.ndarray
    family: str
    critical: bool


@dataclass(frozen=True)
class _Knowledge:
    """The general descriptions of one category, embedded and centred (unit rows)."""

    centre: np.ndarray
    families: dict[int, list[tuple[str, np.ndarray]]]  # by label
    critical: np.ndarray
    remarks: np.ndarray


def answer(label: int, points: Sequence[Point]) -> str:
    """The fixed format: the verdict, then statements by family, e.g.
    `This is a fake image. Texture: the fur is waxy; a grid covers it; Lighting: the shadow is wrong.`"""
    groups = []
    for family in FAMILIES:
        statements = [point.statement for point in points if point.family == family]
        if statements:
            groups.append(f"{family.capitalize()}: {'; '.join(statements)}")
    return f"{VERDICT[label]} {'; '.join(groups)}." if groups else f"{VERDICT[label]} {NOTHING[label]}"


def in_order(points: Iterable[Point]) -> tuple[Point, ...]:
    """By family; in it, what most annotators say first. The text decides the rest."""
    return tuple(sorted(points, key=lambda p: (FAMILIES.index(p.family), -p.witnesses, p.statement)))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


@lru_cache(maxsize=1)
def _descriptions() -> dict:
    return yaml.safe_load(
        resources.files(__package__).joinpath("descriptions.yaml").read_text(encoding="utf-8")
    )


@lru_cache(maxsize=32)
def _knowledge(category: str, encoder: str) -> _Knowledge:
    data = _descriptions()
    subject = data["subjects"].get(category, "the image")

    def rows(texts: list[str]) -> np.ndarray:
        return encode([text.format(s=subject) for text in texts], encoder)

    raw = {
        label: [(family, rows(data[kind][family])) for family in FAMILIES]
        for label, kind in ((FAKE, "artifact"), (REAL, "plausible"))
    }
    centre = np.concatenate([block for blocks in raw.values() for _, block in blocks]).mean(axis=0)
    return _Knowledge(
        centre,
        {label: [(name, _unit(block - centre)) for name, block in blocks] for label, blocks in raw.items()},
        _unit(rows(data["critical"]) - centre),
        _unit(rows(data["remark"]) - centre),
    )


def _nearest(row: np.ndarray, rows: np.ndarray) -> float:
    return float((rows @ row).max())


def _is_clue(text: str, row: np.ndarray, label: int, knowledge: _Knowledge) -> bool:
    """Whether a statement says what the label asks for: something wrong on a fake, something plausible on a photograph.

    The annotators were told the label and asked for just that, so a statement whose words take no side is believed to
    answer the question, unless it is a remark or resembles no description of that kind.
    """
    likeness = {
        key: max(_nearest(row, rows) for _, rows in blocks) for key, blocks in knowledge.families.items()
    }
    likeness[FAKE] = max(likeness[FAKE], _nearest(row, knowledge.critical))
    words = polarity(text)
    if _nearest(row, knowledge.remarks) > max(likeness.values()) + (_REMARK_MARGIN if words else 0.0):
        return False
    return (REAL if words > 0 else FAKE) == label if words else likeness[label] >= _LEAST_LIKENESS


def cluster(similarity: np.ndarray, threshold: float) -> list[list[int]]:
    """Average-linkage clusters of n items from their (n, n) cosine similarities: pairs at `threshold` or more merge."""
    if len(similarity) < 2:
        return [[n] for n in range(len(similarity))]
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    # Rounded: a tie must not be decided by the last bit of a float.
    distance = np.round(1.0 - (similarity + similarity.T) / 2, 5)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), method="average")
    groups: dict[int, list[int]] = {}
    for n, group in enumerate(fcluster(tree, t=1.0 - threshold, criterion="distance")):
        groups.setdefault(int(group), []).append(n)
    return sorted(groups.values())


class EmbeddingAggregator:
    """M by sentence embeddings and clustering: no model to call, the same bytes every time.

    Args:
        encoder: name of the sentence encoder (`fakevlm.model.sentence_encoder`).
        similarity: cosine (after centring) at which two statements say the same.
        min_annotators: distinct witnesses that a point needs.
        critical_similarity: cosine to a critical description at which a single witness is enough; 1 for never.
    """

    def __init__(
        self, encoder: str, similarity: float, min_annotators: int, critical_similarity: float
    ) -> None:
        self.encoder = encoder
        self.similarity = similarity
        self.min_annotators = min_annotators
        self.critical_similarity = critical_similarity

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """One annotation an image, in order. Distinct statements are embedded once per chunk of images, and often once at all."""
        images, rows = iter(images), {}
        while chunk := list(islice(images, _CHUNK)):
            said = [
                [(name, text) for name in sorted(image.captions) for text in split(image.captions[name])]
                for image in chunk
            ]
            distinct = {text for statements in said for _, text in statements}
            if len(rows) > _KEPT:
                rows = {text: row for text, row in rows.items() if text in distinct}
            new = sorted(distinct - rows.keys())
            # Copied: a row that is kept must not keep its whole block.
            rows.update((text, row.copy()) for text, row in zip(new, encode(new, self.encoder), strict=True))
            judged: dict[tuple[str, int, str], _Clue | None] = {}
            for image, statements in zip(chunk, said, strict=True):
                clues = []
                for name, text in statements:
                    key = image.category, image.label, text
                    if key not in judged:
                        judged[key] = self._judge(*key, rows[text])
                    if (clue := judged[key]) is not None:
                        clues.append((name, clue))
                points = self._common(clues)
                yield Annotation(image.id, answer(image.label, points), points)

    def _judge(self, category: str, label: int, text: str, row: np.ndarray) -> _Clue | None:
        """What a statement about a category amounts to; None if it is no clue."""
        knowledge = _knowledge(category, self.encoder)
        row = _unit(row - knowledge.centre)
        if not _is_clue(text, row, label, knowledge):
            return None
        families = {name: _nearest(row, block) for name, block in knowledge.families[label]}
        # Near a critical description and not called slight; the bar is lower if the witness calls it impossible.
        bar = self.critical_similarity - (_EMPHASIS_BONUS if _EMPHASIS.search(text) else 0.0)
        glaring = _nearest(row, knowledge.critical) >= bar and not _SLIGHT.search(text)
        return _Clue(text, row, max(families, key=lambda name: families[name]), label == FAKE and glaring)

    def _common(self, clues: Sequence[tuple[str, _Clue]]) -> tuple[Point, ...]:
        """The points of (annotator, clue) pairs that enough annotators make, and the critical ones."""
        if not clues:
            return ()
        rows = np.stack([clue.row for _, clue in clues])
        similarity = np.round(rows @ rows.T, 5)
        points = []
        for members in cluster(similarity, self.similarity):
            witnesses = len({clues[n][0] for n in members})
            # The medoid; of two, which are always equally central, the shorter.
            central = np.round(similarity[np.ix_(members, members)].mean(axis=1), 4)
            ranked = sorted(
                (-c, len(clues[n][1].text), clues[n][1].text, n)
                for c, n in zip(central, members, strict=True)
            )
            chosen = clues[ranked[0][3]][1]
            if witnesses >= self.min_annotators or chosen.critical:
                points.append(Point(chosen.family, chosen.text, witnesses, witnesses < self.min_annotators))
        return in_order(points)

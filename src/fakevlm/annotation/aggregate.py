"""Aggregate candidate captions into one answer: A = M(A1, A2, A3) (paper section 3.2, Eq. 1).

A language model does it, as in the paper (`aggregate_llm`), or sentence embeddings and clustering, offline
(here). docs/annotation.md describes both.
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

from fakevlm.annotation.captions import polarity, split
from fakevlm.data.records import FAKE, REAL
from fakevlm.model.sentence_encoder import encode

FAMILIES = ("texture", "geometry", "lighting")
VERDICT = {FAKE: "This is a fake image.", REAL: "This is a real image."}
NOTHING = {
    FAKE: "No visible artifact explains it.",
    REAL: "Nothing in it speaks against a photograph.",
}
# A statement with words of polarity is a remark if it is nearer to a remark than to any clue by this margin.
_REMARK_MARGIN = 0.1
# A statement without such words is a clue if it is this similar to a description of the label's kind.
_LEAST_SIMILARITY = 0.2
_EMPHASIS = re.compile(
    r"\b(?:impossibl[ey]|glaring\w*|severe\w*|gross(?:ly)?|blatant\w*|absurd\w*)\b", re.IGNORECASE
)
_EMPHASIS_BONUS = 0.1
_SLIGHT = re.compile(
    r"\b(?:slight\w*|subtle\w*|minor|mild\w*|faint\w*|a little|marginal\w*)\b", re.IGNORECASE
)
_CHUNK = 400  # images embedded together: at 24 distinct statements each 15 MB of embeddings
_CACHED = 20_000  # embeddings kept for later chunks, which repeat many statements: 30 MB


@dataclass(frozen=True, slots=True)
class Candidates:
    """The usable captions of one image, by annotator."""

    id: str
    category: str
    label: int
    captions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Clue:
    """One observation in an answer.

    Attributes:
        critical: whether it was kept for being glaring although too few annotators made it.
    """

    family: str  # of `FAMILIES`
    statement: str
    annotators: int  # how many made it
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The aggregate A of one image.

    Attributes:
        text: the answer in the fixed format; empty if there is none.
        outcome: `ok`, else why there is no answer: the request's outcome, or `invalid` (not the schema).
        problem: what was wrong, if `outcome` is not `ok`.
    """

    id: str
    text: str
    clues: tuple[Clue, ...]
    outcome: str = "ok"
    problem: str = ""


class Aggregator(Protocol):
    """M of Eq. 1."""

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """Yield one annotation an image, in order. `images` may be iterated several times."""
        ...


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement that is a clue, with its centred unit embedding (d,)."""

    text: str
    embedding: np.ndarray
    family: str
    critical: bool


@dataclass(frozen=True)
class _Descriptions:
    """Centred unit embeddings, (n, d) each, of a category's general descriptions; by label and family."""

    centre: np.ndarray
    families: dict[int, dict[str, np.ndarray]]
    critical: np.ndarray
    remarks: np.ndarray


def answer(label: int, clues: Sequence[Clue]) -> str:
    """Return the fixed format: the verdict, then statements by family.

    E.g. `This is a fake image. Texture: the fur is waxy; a grid covers it; Lighting: the shadow is wrong.`
    """
    groups = []
    for family in FAMILIES:
        statements = [clue.statement for clue in clues if clue.family == family]
        if statements:
            groups.append(f"{family.capitalize()}: {'; '.join(statements)}")
    return f"{VERDICT[label]} {'; '.join(groups)}." if groups else f"{VERDICT[label]} {NOTHING[label]}"


def in_order(clues: Iterable[Clue]) -> tuple[Clue, ...]:
    """Return clues sorted by family, falling number of annotators, and text."""
    return tuple(
        sorted(clues, key=lambda clue: (FAMILIES.index(clue.family), -clue.annotators, clue.statement))
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


@lru_cache(maxsize=32)
def _descriptions(category: str, encoder: str) -> _Descriptions:
    file = resources.files(__package__).joinpath("descriptions.yaml")
    texts = yaml.safe_load(file.read_text(encoding="utf-8"))
    subject = texts["subjects"].get(category, "the image")

    def rows(sentences: list[str]) -> np.ndarray:
        return encode([sentence.format(s=subject) for sentence in sentences], encoder)

    raw = {
        label: {family: rows(texts[kind][family]) for family in FAMILIES}
        for label, kind in ((FAKE, "artifact"), (REAL, "plausible"))
    }
    centre = np.concatenate([block for blocks in raw.values() for block in blocks.values()]).mean(axis=0)
    families = {
        label: {family: _unit(block - centre) for family, block in blocks.items()}
        for label, blocks in raw.items()
    }
    critical, remarks = (_unit(rows(texts[name]) - centre) for name in ("critical", "remark"))
    return _Descriptions(centre, families, critical, remarks)


def _nearest(row: np.ndarray, rows: np.ndarray) -> float:
    return float((rows @ row).max())


def cluster(similarity: np.ndarray, threshold: float) -> list[list[int]]:
    """Return average-linkage clusters of n rows from their (n, n) cosines; merge down to `threshold`."""
    if len(similarity) < 2:
        return [[n] for n in range(len(similarity))]
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    # Rounded, so that the last bit of a float decides no tie.
    distance = np.round(1.0 - (similarity + similarity.T) / 2, 5)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), method="average")
    groups = fcluster(tree, t=1.0 - threshold, criterion="distance")
    return sorted(np.flatnonzero(groups == group).tolist() for group in np.unique(groups))


@dataclass
class EmbeddingAggregator:
    """M by sentence embeddings and clustering; equal inputs give equal bytes.

    Attributes:
        encoder: name of the sentence encoder (`fakevlm.model.sentence_encoder`).
        similarity: cosine (after centring) at which two statements say the same.
        min_annotators: distinct annotators that a clue needs.
        critical_similarity: cosine to a critical description at which one annotator is enough; 1 for never.
    """

    encoder: str
    similarity: float
    min_annotators: int
    critical_similarity: float

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """Yield one annotation an image, in order; embed a chunk's distinct statements once."""
        images, embeddings = iter(images), {}
        while chunk := list(islice(images, _CHUNK)):
            pairs = [
                [(name, text) for name in sorted(image.captions) for text in split(image.captions[name])]
                for image in chunk
            ]
            distinct = {text for statements in pairs for _, text in statements}
            if len(embeddings) > _CACHED:
                embeddings = {text: row for text, row in embeddings.items() if text in distinct}
            new = sorted(distinct - embeddings.keys())
            # Copied, so that a cached row does not keep its whole block in memory.
            embeddings |= {text: row.copy() for text, row in zip(new, encode(new, self.encoder), strict=True)}
            judged: dict[tuple[str, int, str], _Statement | None] = {}
            for image, statements in zip(chunk, pairs, strict=True):
                candidates = []
                for name, text in statements:
                    key = image.category, image.label, text
                    if key not in judged:
                        judged[key] = self._judge(*key, embeddings[text])
                    if (statement := judged[key]) is not None:
                        candidates.append((name, statement))
                clues = self._common(candidates)
                yield Annotation(image.id, answer(image.label, clues), clues)

    def _judge(self, category: str, label: int, text: str, row: np.ndarray) -> _Statement | None:
        """Return a statement with its family and whether it is critical; None if it is no clue.

        A clue says what its label asks for: an artifact of a fake, plausibility of a real image. The
        annotators know the label, so a statement without words of polarity counts, unless it is a remark or
        resembles no description of the label's kind.
        """
        about = _descriptions(category, self.encoder)
        row = _unit(row - about.centre)
        near = {
            side: {family: _nearest(row, block) for family, block in blocks.items()}
            for side, blocks in about.families.items()
        }
        critical, sign = _nearest(row, about.critical), polarity(text)
        best = {FAKE: max(critical, *near[FAKE].values()), REAL: max(near[REAL].values())}
        if _nearest(row, about.remarks) > max(best.values()) + (_REMARK_MARGIN if sign else 0.0):
            return None
        if sign != (1 if label == REAL else -1) if sign else best[label] < _LEAST_SIMILARITY:
            return None
        # Critical: near a critical description and not called slight. Words like "impossible" lower the bar.
        bar = self.critical_similarity - (_EMPHASIS_BONUS if _EMPHASIS.search(text) else 0.0)
        glaring = label == FAKE and critical >= bar and not _SLIGHT.search(text)
        return _Statement(text, row, max(near[label], key=near[label].get), glaring)

    def _common(self, candidates: Sequence[tuple[str, _Statement]]) -> tuple[Clue, ...]:
        """Return agreed and critical clues from (annotator, statement) pairs."""
        if not candidates:
            return ()
        authors, statements = zip(*candidates, strict=True)
        rows = np.stack([statement.embedding for statement in statements])
        similarity, clues = np.round(rows @ rows.T, 5), []
        for members in cluster(similarity, self.similarity):
            # The medoid. Two members are always equally central: the shorter wins.
            central = np.round(similarity[np.ix_(members, members)].mean(axis=1), 4)
            texts = [statements[n].text for n in members]
            medoid = statements[min(zip(-central, map(len, texts), texts, members, strict=True))[3]]
            annotators = len({authors[n] for n in members})
            agreed = annotators >= self.min_annotators
            if agreed or medoid.critical:
                clues.append(Clue(medoid.family, medoid.text, annotators, not agreed))
        return in_order(clues)

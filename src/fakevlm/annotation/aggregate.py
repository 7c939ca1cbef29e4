"""Aggregate candidate captions into one answer: A = M(A1, A2, A3) (paper section 3.2, Eq. 1).

The paper asks M to extract the clues common to several models, to drop observations of a single model unless
they are critical (glaring artifacts), to order the rest into texture, geometry and lighting, and to write a
fixed format. It gives that to a language model it does not name, as `aggregate_llm` does. Here sentence
embeddings and clustering do it, on any free text, offline:

1. Split captions into statements (`captions`), embed each distinct one once, and subtract the mean embedding
   of the category's general descriptions (`descriptions.yaml`): what all statements about animals share is no
   agreement.
2. Drop verdicts, remarks and statements of the wrong polarity: of a fake keep what is wrong, of a real image
   what is plausible (`captions.polarity`, or the nearest description if words do not say).
3. Cluster across annotators (average linkage, cosine at least `similarity`). Keep clusters of
   `min_annotators` annotators, and single statements near a critical description. The medoid's words stand
   for the cluster.
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
        family: of `FAMILIES`.
        statement: its words.
        annotators: how many made it.
        critical: whether it was kept for being glaring although too few made it.
    """

    family: str
    statement: str
    annotators: int
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The aggregate A of one image.

    Attributes:
        id: the record's.
        text: the answer in the fixed format; empty if there is none.
        clues: the observations in the answer.
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
    """The general descriptions of one category as centred unit embeddings, (n, d) each; families by label."""

    centre: np.ndarray
    families: dict[int, list[tuple[str, np.ndarray]]]
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


@lru_cache(maxsize=1)
def _texts() -> dict:
    return yaml.safe_load(
        resources.files(__package__).joinpath("descriptions.yaml").read_text(encoding="utf-8")
    )


@lru_cache(maxsize=32)
def _descriptions(category: str, encoder: str) -> _Descriptions:
    texts = _texts()
    subject = texts["subjects"].get(category, "the image")

    def rows(sentences: list[str]) -> np.ndarray:
        return encode([sentence.format(s=subject) for sentence in sentences], encoder)

    raw = {
        label: [(family, rows(texts[kind][family])) for family in FAMILIES]
        for label, kind in ((FAKE, "artifact"), (REAL, "plausible"))
    }
    centre = np.concatenate([block for blocks in raw.values() for _, block in blocks]).mean(axis=0)
    return _Descriptions(
        centre,
        {label: [(name, _unit(block - centre)) for name, block in blocks] for label, blocks in raw.items()},
        _unit(rows(texts["critical"]) - centre),
        _unit(rows(texts["remark"]) - centre),
    )


def _nearest(row: np.ndarray, rows: np.ndarray) -> float:
    return float((rows @ row).max())


def _is_clue(text: str, row: np.ndarray, label: int, descriptions: _Descriptions) -> bool:
    """Return whether a statement says what its label asks for: an artifact, or plausibility.

    The annotators know the label. So a statement without words of polarity counts, unless it is a remark or
    resembles no description of the label's kind.
    """
    similarity = {
        key: max(_nearest(row, rows) for _, rows in blocks) for key, blocks in descriptions.families.items()
    }
    similarity[FAKE] = max(similarity[FAKE], _nearest(row, descriptions.critical))
    sign = polarity(text)
    if _nearest(row, descriptions.remarks) > max(similarity.values()) + (_REMARK_MARGIN if sign else 0.0):
        return False
    return (REAL if sign > 0 else FAKE) == label if sign else similarity[label] >= _LEAST_SIMILARITY


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
    groups: dict[int, list[int]] = {}
    for n, group in enumerate(fcluster(tree, t=1.0 - threshold, criterion="distance")):
        groups.setdefault(int(group), []).append(n)
    return sorted(groups.values())


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
        """Return a statement with its family and whether it is critical; None if it is no clue."""
        descriptions = _descriptions(category, self.encoder)
        row = _unit(row - descriptions.centre)
        if not _is_clue(text, row, label, descriptions):
            return None
        families = {name: _nearest(row, block) for name, block in descriptions.families[label]}
        # Critical: near a critical description and not called slight. Words like "impossible" lower the bar.
        bar = self.critical_similarity - (_EMPHASIS_BONUS if _EMPHASIS.search(text) else 0.0)
        glaring = _nearest(row, descriptions.critical) >= bar and not _SLIGHT.search(text)
        return _Statement(text, row, max(families, key=families.get), label == FAKE and glaring)

    def _common(self, candidates: Sequence[tuple[str, _Statement]]) -> tuple[Clue, ...]:
        """Return agreed and critical clues from (annotator, statement) pairs."""
        if not candidates:
            return ()
        rows = np.stack([statement.embedding for _, statement in candidates])
        similarity = np.round(rows @ rows.T, 5)
        clues = []
        for members in cluster(similarity, self.similarity):
            annotators = len({candidates[n][0] for n in members})
            # The medoid. Two members are always equally central: the shorter wins.
            central = np.round(similarity[np.ix_(members, members)].mean(axis=1), 4)
            texts = [candidates[n][1].text for n in members]
            ranked = sorted(zip(-central, map(len, texts), texts, members, strict=True))
            medoid = candidates[ranked[0][3]][1]
            agreed = annotators >= self.min_annotators
            if agreed or medoid.critical:
                clues.append(Clue(medoid.family, medoid.text, annotators, not agreed))
        return in_order(clues)

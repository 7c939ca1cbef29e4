"""Aggregate candidate captions into one answer: A = M(A1, A2, A3) (paper section 3.2, Eq. 1).

A language model does it, as in the paper (`aggregate_llm`), or sentence embeddings and clustering, offline
(here). docs/annotation.md describes both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from fakevlm.annotation.captions import EMPHASIS, SLIGHT, polarity, split
from fakevlm.config.params import Embedding
from fakevlm.data.records import FAKE, REAL
from fakevlm.model.sentence_encoder import encode

FAMILIES = ("texture", "geometry", "lighting")
VERDICT = {FAKE: "This is a fake image.", REAL: "This is a real image."}
NOTHING = {FAKE: "No visible artifact explains it.", REAL: "Nothing in it speaks against a photograph."}
# A statement with words of polarity is a remark if it is nearer to a remark than to any clue by this margin.
_REMARK_MARGIN = 0.1
# A statement without such words is a clue if it is this similar to a description of the label's kind.
_LEAST_SIMILARITY = 0.2
_EMPHASIS_BONUS = 0.1
_CHUNK = 400  # images embedded together: at 24 distinct statements each 15 MB of embeddings
_CACHED = 20_000  # statements kept for later chunks, which repeat many: 30 MB


@dataclass(frozen=True, slots=True)
class Candidates:
    """The usable captions of one image, by annotator."""

    id: str
    category: str
    label: int
    captions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Clue:
    """One observation in an answer."""

    family: str  # of `FAMILIES`
    statement: str
    annotators: int  # how many made it
    critical: bool = False  # it is glaring, and was kept although too few annotators made it


@dataclass(frozen=True, slots=True)
class Annotation:
    """The aggregate A of one image."""

    id: str
    text: str  # the answer in the fixed format; empty if there is none
    clues: tuple[Clue, ...]
    outcome: str = "ok"  # else why there is no answer: the request's outcome, or `invalid` (not the schema)
    problem: str = ""  # what was wrong, if `outcome` is not `ok`


def answer(label: int, clues: Sequence[Clue]) -> str:
    """Return the fixed format: the verdict, then statements by family.

    E.g. `This is a fake image. Texture: the fur is waxy; a grid covers it; Lighting: the shadow is wrong.`
    """
    groups = []
    for family in FAMILIES:
        if statements := [clue.statement for clue in clues if clue.family == family]:
            groups.append(f"{family.capitalize()}: {'; '.join(statements)}")
    return f"{VERDICT[label]} {'; '.join(groups)}." if groups else f"{VERDICT[label]} {NOTHING[label]}"


def in_order(clues: Iterable[Clue]) -> tuple[Clue, ...]:
    """Return clues sorted by family, falling number of annotators, and text."""
    return tuple(sorted(clues, key=lambda one: (FAMILIES.index(one.family), -one.annotators, one.statement)))


class _Descriptions(NamedTuple):
    """Centred unit embeddings, (n, d) each, of a category's general descriptions, and their centre (d,)."""

    centre: np.ndarray
    families: dict[int, dict[str, np.ndarray]]  # by label and family
    critical: np.ndarray
    remarks: np.ndarray


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


@lru_cache(maxsize=32)
def _descriptions(category: str, encoder: str) -> _Descriptions:
    texts = yaml.safe_load(Path(__file__).with_name("descriptions.yaml").read_text(encoding="utf-8"))
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
    # Rounded, so that the last bit of a float decides no tie.
    distance = np.round(1.0 - (similarity + similarity.T) / 2, 5)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(np.maximum(distance, 0.0), checks=False), method="average")
    groups = fcluster(tree, t=1.0 - threshold, criterion="distance")
    return sorted(np.flatnonzero(groups == group).tolist() for group in np.unique(groups))


@dataclass
class EmbeddingAggregator:
    """M by sentence embeddings and clustering; equal inputs give equal bytes."""

    spec: Embedding
    min_annotators: int  # distinct annotators that a clue needs, unless it is critical

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """Yield one annotation an image, in order; judge each distinct statement of a chunk once."""
        images, judged = iter(images), {}
        while chunk := list(islice(images, _CHUNK)):
            if len(judged) > _CACHED:
                judged.clear()
            statements = [
                [
                    (name, (image.category, image.label, text))
                    for name in sorted(image.captions)
                    for text in split(image.captions[name])
                ]
                for image in chunk
            ]
            new = sorted({key for pairs in statements for _, key in pairs} - judged.keys())
            rows = encode([text for _, _, text in new], self.spec.encoder)
            judged |= {key: self._judge(*key, row) for key, row in zip(new, rows, strict=True)}
            for image, pairs in zip(chunk, statements, strict=True):
                clues = self._common([(name, *judged[key]) for name, key in pairs if judged[key]])
                yield Annotation(image.id, answer(image.label, clues), clues)

    def _judge(self, category: str, label: int, text: str, row: np.ndarray) -> tuple[Clue, np.ndarray] | None:
        """Return one annotator's statement as a clue and its centred unit embedding (d,); None if it is none.

        A clue says what its label asks for: an artifact of a fake, plausibility of a real image. Without
        words of polarity it counts unless it is a remark or resembles no description of the label's kind.
        """
        about = _descriptions(category, self.spec.encoder)
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
        bar = self.spec.critical_similarity - (_EMPHASIS_BONUS if EMPHASIS.search(text) else 0.0)
        glaring = label == FAKE and critical >= bar and not SLIGHT.search(text)
        return Clue(max(near[label], key=near[label].get), text, 1, glaring), row

    def _common(self, candidates: Sequence[tuple[str, Clue, np.ndarray]]) -> tuple[Clue, ...]:
        """Return agreed and critical clues from (annotator, its clue, embedding) triples."""
        if not candidates:
            return ()
        authors, clues, rows = zip(*candidates, strict=True)
        matrix, common = np.stack(rows), []
        similarity = np.round(matrix @ matrix.T, 5)
        for members in cluster(similarity, self.spec.similarity):
            # The medoid. Two members are always equally central: the shorter wins.
            central = np.round(similarity[np.ix_(members, members)].mean(axis=1), 4)
            texts = [clues[n].statement for n in members]
            medoid = clues[min(zip(-central, map(len, texts), texts, members, strict=True))[3]]
            annotators = len({authors[n] for n in members})
            agreed = annotators >= self.min_annotators
            if agreed or medoid.critical:
                common.append(replace(medoid, annotators=annotators, critical=not agreed))
        return in_order(common)

"""Quality of an explanation: ROUGE-L and CSS against references (paper, section 5.2, which defines neither).

Explanations of *different* images are alike in form, so these do not say that the right artifacts were named.
Clue precision and recall do, where the artifacts are known: in the miniature.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rapidfuzz.distance import LCSseq
from sklearn.preprocessing import MultiLabelBinarizer

from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.ground_truth import GroundTruth

KIND_NAMES = tuple(KINDS)
_PART = re.compile(r"\b(skin|eyebrows?|eyes?|nose|mouth|lips?|teeth|hair|ears?|cheeks?)\b", re.IGNORECASE)


def asks_about_part(question: str | None) -> bool:
    """Return whether a question (DD-VQA) is about a part of the face and not the image."""
    return bool(question and _PART.search(question))


def tokens(text: str) -> list[str]:
    """Return lower-case runs of letters a–z and digits: the tokens of `rouge_score` without stemmer."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(text: str, references: Sequence[str]) -> float:
    """Return the ROUGE-L F-measure (0–1) against the best of several references, as `rouge_score`, but fast.

    F = 2PR / (P + R) with P = LCS / |text|, R = LCS / |reference| over tokens. 0 where either has no tokens.
    """
    words, best = tokens(text), 0.0
    for reference in references:
        others = tokens(reference)
        if common := LCSseq.similarity(words, others):
            precision, recall = common / len(words), common / len(others)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


def css(
    texts: Sequence[str], references: Sequence[Sequence[str]], encode: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """Return the cosine of sentence embeddings of each text and the closest of its references: (n,).

    An empty text scores 0, for it explains nothing. `encode` gives unit rows (m, d) for m sentences.
    """
    distinct = sorted({*texts, *(r for group in references for r in group)} - {""})
    scores = np.zeros(len(texts))
    vectors = dict(zip(distinct, np.asarray(encode(distinct)), strict=True)) if distinct else {}
    for n, (text, group) in enumerate(zip(texts, references, strict=True)):
        if text:
            scores[n] = max((float(vectors[text] @ vectors[r]) for r in group if r), default=0.0)
    return scores


def clue_tables(
    paths: Sequence[str], texts: Sequence[str], ground_truths: Mapping[str, GroundTruth]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kinds of artifact in n images (`Record.path`) and in the texts about them.

    Each kind counts at most once an image, on fakes with visible artifacts. A fake taken for real names
    nothing and loses recall; a kind that is not there costs precision.

    Returns:
        Bool arrays: (n,) the image is known to have visible artifacts; (n, kinds) it has the kind;
        (n, kinds) the text names it. Columns are `KIND_NAMES`; rows without known artifacts are empty.
    """
    kinds = [ground_truths[path].kinds if path in ground_truths else set() for path in paths]
    named = [kinds_named(text) if there else set() for text, there in zip(texts, kinds, strict=True)]
    columns = MultiLabelBinarizer(classes=KIND_NAMES)
    true, claimed = (columns.fit_transform(rows).astype(bool) for rows in (kinds, named))
    return true.any(axis=1), true, claimed

"""Likeness of an explanation to its references: ROUGE-L and CSS (paper, section 5.2, which defines neither).

Explanations of *different* images are alike in form, so neither says that the right artifacts were named.
Clue precision and recall (`evaluation.clues`) do.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import LCSseq


def tokens(text: str) -> list[str]:
    """Lower-case runs of letters a–z and digits: the tokens of `rouge_score` without stemmer."""
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L F-measure (0–1) against the best of several references; as `rouge_score`, many times as fast.

    F = 2PR / (P + R) with P = LCS / |text|, R = LCS / |reference| over tokens. 0 where either has no tokens.
    """
    words, best = tokens(text), 0.0
    for reference in references:
        others = tokens(reference)
        if words and others:
            common = LCSseq.similarity(words, others)
            precision, recall = common / len(words), common / len(others)
            best = max(best, 2 * precision * recall / (precision + recall) if common else 0.0)
    return best


def css(
    texts: Sequence[str], references: Sequence[Sequence[str]], encode: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """Cosine of sentence embeddings of each text and the closest of its references. Shape (n,).

    Args:
        texts: n answers; an empty one scores 0, for it explains nothing.
        references: for each, at least one reference.
        encode: maps sentences to unit rows (m, d), e.g. `functools.partial(encoder.encode, name=…)`.
    """
    distinct = sorted({*texts, *(r for group in references for r in group)} - {""})
    if not distinct:
        return np.zeros(len(texts))
    vectors = np.asarray(encode(distinct))
    row = {sentence: i for i, sentence in enumerate(distinct)}
    scores = np.zeros(len(texts))
    for n, (text, group) in enumerate(zip(texts, references, strict=True)):
        if text:
            scores[n] = max((float(vectors[row[text]] @ vectors[row[r]]) for r in group if r), default=0.0)
    return scores

"""FakeClue for lmms-eval: what its task files call. Verdicts and metrics are this project's own.

An answer's verdict is what its text claims (`fakevlm.model.verdict`); one that claims nothing is unparsed and wrong. There is no
AUC here: lmms-eval hands over texts, not probabilities.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fakevlm.data.records import FAKE, QUESTION, REAL
from fakevlm.evaluation import metrics, text
from fakevlm.model import sentence_encoder as encoder
from fakevlm.model import verdict

METRICS = ("acc", "f1_real", "f1_fake", "f1_macro", "unparsed", "rouge_l", "css")
Row = dict[str, Any]


def doc_to_visual(doc: Row) -> list:
    """The image, RGB."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: dict[str, str] | None = None) -> str:
    """The record's own question or the paper's, between what a model's entry in the task file puts around it."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{_question(doc)}{around.get('post_prompt', '')}"


def doc_to_messages(doc: Row, lmms_eval_specific_kwargs: dict[str, str] | None = None) -> list[Row]:
    """The same for chat models: the image, then the question."""
    content = [{"type": "image", "url": image} for image in doc_to_visual(doc)]
    asked = {"type": "text", "text": doc_to_text(doc, lmms_eval_specific_kwargs)}
    return [{"role": "user", "content": [*content, asked]}]


def doc_to_target(doc: Row) -> str:
    """The first reference: verdict and clues."""
    return (doc["references"] or [""])[0]


def process_results(doc: Row, results: list[str]) -> dict[str, Row]:
    """One answer judged; every metric gets the same row and takes from it what it needs.

    Args:
        doc: the document, without its image.
        results: the answer, alone in a list.
    """
    said = verdict.parse(results[0], _question(doc))
    row = {
        "id": doc["id"],
        "item": doc["item"],
        "category": doc["category"],
        "label": doc["label"],
        "verdict": said,
        "score": float(metrics.VERDICTS[said] == doc["label"]),
        "text": results[0],
        "references": doc["references"] or [],
    }
    return {f"fakeclue_{metric}": row for metric in METRICS}


def accuracy(rows: list[Row]) -> float:
    """Share of right verdicts; unparsed ones are wrong."""
    return float(metrics.accuracy(_labels(rows), _said(rows)))


def f1_real(rows: list[Row]) -> float:
    """F1 of *real*: the paper's F1 on FakeClue."""
    return float(metrics.f1(_labels(rows), _said(rows), REAL))


def f1_fake(rows: list[Row]) -> float:
    """F1 of *fake*."""
    return float(metrics.f1(_labels(rows), _said(rows), FAKE))


def f1_macro(rows: list[Row]) -> float:
    """Mean of F1 over both classes."""
    return float(metrics.f1_macro(_labels(rows), _said(rows)))


def unparsed(rows: list[Row]) -> float:
    """Share of answers that claim nothing."""
    return float(metrics.mean(_said(rows) == metrics.VERDICTS["unparsed"]))


def rouge_l(rows: list[Row]) -> float:
    """Mean ROUGE-L F (0–1) of answers against their references."""
    return _mean(rows, lambda kept: [text.rouge_l(row["text"], row["references"]) for row in kept])


def css(rows: list[Row]) -> float:
    """Mean cosine of the sentence embeddings (all-MiniLM-L6-v2) of answers and references."""
    return _mean(
        rows,
        lambda kept: text.css(
            [row["text"] for row in kept], [row["references"] for row in kept], encoder.encode
        ),
    )


def _question(doc: Row) -> str:
    return doc.get("question") or QUESTION


def _labels(rows: list[Row]) -> np.ndarray:
    return np.array([row["label"] for row in rows])


def _said(rows: list[Row]) -> np.ndarray:
    return metrics.codes([row["verdict"] for row in rows])


def _mean(rows: list[Row], measure: Callable[[list[Row]], Any]) -> float:
    """Over the rows that have references; NaN where none has."""
    kept = [row for row in rows if row["references"]]
    return float(np.mean(measure(kept))) if kept else float("nan")

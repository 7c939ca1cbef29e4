"""FakeClue for lmms-eval: the functions that its task files call.

Verdicts and metrics are this project's own. An answer without a verdict (`fakevlm.model.verdict`) is unparsed
and counts as wrong. There is no AUC, because lmms-eval gives texts, not probabilities.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fakevlm.data.records import FAKE, QUESTION, REAL
from fakevlm.evaluation import explanations, metrics
from fakevlm.model import sentence_encoder as encoder
from fakevlm.model import verdict

METRICS = ("acc", "f1_real", "f1_fake", "f1_macro", "unparsed", "rouge_l", "css")
Row = dict[str, Any]


def doc_to_visual(doc: Row) -> list:
    """Return the image, RGB."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: dict[str, str] | None = None) -> str:
    """Return the question between the prompts that the task file sets for a model."""
    around = lmms_eval_specific_kwargs or {}
    return f"{around.get('pre_prompt', '')}{_question(doc)}{around.get('post_prompt', '')}"


def doc_to_messages(doc: Row, lmms_eval_specific_kwargs: dict[str, str] | None = None) -> list[Row]:
    """Return a chat message with the image and the question."""
    content = [{"type": "image", "url": image} for image in doc_to_visual(doc)]
    question = {"type": "text", "text": doc_to_text(doc, lmms_eval_specific_kwargs)}
    return [{"role": "user", "content": [*content, question]}]


def doc_to_target(doc: Row) -> str:
    """Return the first reference: verdict and clues."""
    return (doc["references"] or [""])[0]


def process_results(doc: Row, results: list[str]) -> dict[str, Row]:
    """Return one row for every metric; each takes from it what it needs.

    Args:
        doc: the document, without its image.
        results: the answer, alone in a list.
    """
    answered = verdict.parse(results[0], _question(doc))
    row = {
        "id": doc["id"],
        "group": doc["group"],
        "category": doc["category"],
        "label": doc["label"],
        "verdict": answered,
        "score": float(metrics.VERDICTS[answered] == doc["label"]),
        "text": results[0],
        "references": doc["references"] or [],
    }
    return {f"fakeclue_{metric}": row for metric in METRICS}


def accuracy(rows: list[Row]) -> float:
    """Return the share of right verdicts; unparsed ones are wrong."""
    return float(metrics.accuracy(_labels(rows), _verdicts(rows)))


def f1_real(rows: list[Row]) -> float:
    """Return the F1 of *real*: the paper's F1 on FakeClue."""
    return float(metrics.f1(_labels(rows), _verdicts(rows), REAL))


def f1_fake(rows: list[Row]) -> float:
    """Return the F1 of *fake*."""
    return float(metrics.f1(_labels(rows), _verdicts(rows), FAKE))


def f1_macro(rows: list[Row]) -> float:
    """Return the mean of F1 over both classes."""
    return float(metrics.f1_macro(_labels(rows), _verdicts(rows)))


def unparsed(rows: list[Row]) -> float:
    """Return the share of answers without a verdict."""
    return float(metrics.mean(_verdicts(rows) == metrics.VERDICTS["unparsed"]))


def rouge_l(rows: list[Row]) -> float:
    """Return the mean ROUGE-L F (0–1) of answers against their references."""
    return _mean(
        rows, lambda answered: [explanations.rouge_l(row["text"], row["references"]) for row in answered]
    )


def css(rows: list[Row]) -> float:
    """Return the mean cosine of the sentence embeddings (all-MiniLM-L6-v2) of answers and references."""
    return _mean(
        rows,
        lambda answered: explanations.css(
            [row["text"] for row in answered], [row["references"] for row in answered], encoder.encode
        ),
    )


def _question(doc: Row) -> str:
    return doc.get("question") or QUESTION


def _labels(rows: list[Row]) -> np.ndarray:
    return np.array([row["label"] for row in rows])


def _verdicts(rows: list[Row]) -> np.ndarray:
    return metrics.codes([row["verdict"] for row in rows])


def _mean(rows: list[Row], measure: Callable[[list[Row]], Any]) -> float:
    """Return the mean over the rows with references; NaN without any."""
    answered = [row for row in rows if row["references"]]
    return float(np.mean(measure(answered))) if answered else float("nan")

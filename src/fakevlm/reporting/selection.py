"""Which cases are shown: drawn at random with the run's seed, with a failure if there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fakevlm.data.records import CATEGORIES
from fakevlm.errors import UserError
from fakevlm.evaluation.scores import asks_about_part
from fakevlm.reporting.case_figures import Case
from fakevlm.reporting.inputs import Inputs, evaluated, fetch
from fakevlm.reporting.texts import LABELS, METHOD, UNTUNED

FIG5_CATEGORIES = ("animal", "human", "object", "doc", "satellite")


@dataclass(frozen=True)
class Selection:
    """Cases, and the numbers for the caption that says how they were drawn."""

    cases: list[Case]
    facts: dict[str, Any]
    captions: dict[str, str] | None = None  # of Figure 2's example: annotator → caption


def _answers(inputs: Inputs, benchmark: str) -> pd.DataFrame:
    """Return FakeVLM's predictions, sorted by id, with the true label and whether the verdict is right.

    An answer about a part of a face gives no verdict on the image and so cannot fail.
    """
    frame = inputs.predictions[benchmark]
    answers = frame[frame.method == METHOD].sort_values("id", kind="stable", ignore_index=True)
    if answers.empty and len(frame):
        message = f"the predictions of {benchmark} hold no answers of {METHOD}"
        raise UserError(message, f"make them again: dvc repro -f evaluate@{benchmark}")
    label = answers.label.map(LABELS)
    decides = ~answers.question.fillna("").map(asks_about_part).astype(bool)
    return answers.assign(truth=label, right=(answers.verdict == label) | ~decides)


def sample(
    frame: pd.DataFrame, cases: int, rng: np.random.Generator, groups: Sequence[str], column: str = "category"
) -> tuple[list[str], str | None, int]:
    """Draw cases - 1 rows at random, in turn from each group, and one more among the failures not drawn yet.

    Args:
        frame: id, right, and `column`, sorted by id.
        groups: values of `column` in turn; rows of other groups are never drawn.

    Returns:
        ids in the order drawn, the id of the failure (None without one), the number of failures.
    """
    frame = frame[frame[column].isin(groups)]
    pools = [list(rng.permutation(frame[frame[column] == g].id.to_numpy(dtype=object))) for g in groups]
    turns = [pool[i] for i in range(max(map(len, pools))) for pool in pools if i < len(pool)]
    failures = frame[~frame.right].id.tolist()
    chosen = turns[: cases - 1 if failures and cases > 1 else cases]
    left = [i for i in failures if i not in chosen]
    extra = left[int(rng.integers(len(left)))] if left and len(chosen) < cases else None
    return chosen, extra, len(failures)


def first_reference(text: str) -> str:
    """Return the first of the references that stand one a line, and how many more there are."""
    first, *more = text.split("\n")
    return f"{first} (and {len(more)} more)" if more else first


def _select(
    inputs: Inputs, benchmark: str, number: int, rows: pd.DataFrame, groups: Sequence[str], column: str
) -> Selection:
    """Draw cases from `rows` of FakeVLM's answers, with the seed of figure `number`."""
    if rows.empty:
        return Selection([], {"total": 0})
    rng = np.random.default_rng([inputs.params.seed, number])
    ids, extra, failures = sample(rows, inputs.params.report.cases, rng, groups, column)
    facts = {"cases": len(ids), "extra": extra, "failures": failures}
    facts |= {"total": len(rows), "seed": inputs.params.seed}
    keys = [*ids, extra] if extra else ids
    records, frame = fetch(evaluated(benchmark), keys), inputs.predictions[benchmark]
    base = frame[frame.method == UNTUNED].set_index("id")
    answers = rows.set_index("id").fillna({"text": "", "reference": ""})
    shown = [
        Case.of(
            records[key],
            inputs.ground_truth.get(records[key].path),
            category=answers.category[key] if pd.notna(answers.category[key]) else records[key].category,
            words=answers.text[key],
            verdict=answers.verdict[key],
            reference=first_reference(answers.reference[key]),
            base_words=base.text.fillna("").get(key),
            base_verdict=base.verdict.get(key),
            decides=not asks_about_part(records[key].question),
            chosen="failure" if key == extra else "random",
        )
        for key in keys
    ]
    return Selection(shown, facts)


def fig5(inputs: Inputs) -> Selection:
    """Return fakes of FakeClue's test split, in the categories of the paper's Fig. 5."""
    rows = _answers(inputs, "fakeclue")
    rows = rows[(rows.label == 0) & rows.category.isin(FIG5_CATEGORIES)]
    return _select(inputs, "fakeclue", 5, rows, FIG5_CATEGORIES, "category")


def fig6(inputs: Inputs) -> Selection:
    """Return questions of DD-VQA, fakes and real images (paper Fig. 6)."""
    return _select(inputs, "ddvqa", 6, _answers(inputs, "ddvqa"), ("fake", "real"), "truth")


def fig7(inputs: Inputs) -> Selection:
    """Return real images of FakeClue's test split (paper Fig. 7)."""
    rows = _answers(inputs, "fakeclue")
    return _select(inputs, "fakeclue", 7, rows[rows.label == 1], CATEGORIES, "category")


def fig2_example(inputs: Inputs) -> Selection:
    """Return a fake of the training split that every annotator captioned, drawn at random (paper Fig. 2).

    Where the ground truth is known, a fake with visible artifacts.
    """
    names = [annotator.name for annotator in inputs.params.annotate.annotators]
    usable = inputs.candidates[inputs.candidates.outcome.isin(["ok", "truncated"])]
    captions = usable.groupby("id").annotator.nunique()
    train = inputs.fakeclue[(inputs.fakeclue.split == "train") & (inputs.fakeclue.label == 0)]
    ids = sorted(set(train.id) & set(captions.index[captions == len(names)]))
    ids = [i for i in ids if i in inputs.ground_truth and inputs.ground_truth[i].artifacts] or ids
    if not ids:
        message = "no fake of FakeClue's training split has a caption of every annotator"
        raise UserError(message, "look at artifacts/annotate/candidates.parquet, then dvc repro -f annotate")
    seed = inputs.params.seed
    key = ids[int(np.random.default_rng([seed, 2]).integers(len(ids)))]
    record = fetch(evaluated("fakeclue").parent / "train", [key])[key]
    case = Case.of(record, inputs.ground_truth.get(record.path))
    by_name = usable[usable.id == key].set_index("annotator").text[names].to_dict()
    return Selection([case], {"seed": seed, "total": len(ids)}, by_name)

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
    """Cases, and the numbers for the sentence that says how they were drawn."""

    cases: list[Case]
    facts: dict[str, Any]


def _answers(inputs: Inputs, benchmark: str) -> pd.DataFrame:
    """Return FakeVLM's predictions, sorted by id, with the true label and whether the verdict is right.

    An answer about a part of a face gives no verdict on the image and so cannot fail.
    """
    frame = inputs.predictions[benchmark]
    answers = frame[frame.method == METHOD].sort_values("id", kind="stable", ignore_index=True)
    if answers.empty and len(frame):
        raise UserError(
            f"the predictions of {benchmark} hold no answers of {METHOD}",
            f"make them again: dvc repro -f evaluate@{benchmark}",
        )
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
    pools = {g: list(rng.permutation(frame[frame[column] == g].id.to_numpy(dtype=object))) for g in groups}
    failures = frame[~frame.right].id.tolist()
    wanted = cases - 1 if failures and cases > 1 else cases
    chosen: list[str] = []
    while len(chosen) < wanted and any(pools.values()):
        for group in groups:
            if pools[group] and len(chosen) < wanted:
                chosen.append(pools[group].pop(0))
    left = [i for i in failures if i not in chosen]
    extra = left[int(rng.integers(len(left)))] if left and len(chosen) < cases else None
    return chosen, extra, len(failures)


def _artifacts(inputs: Inputs, key: str) -> dict[str, Any]:
    """Return what a case shows of an image's ground truth, by its path."""
    truth = inputs.ground_truth.get(key)
    artifacts = truth.artifacts if truth else []
    return {
        "kinds": tuple(dict.fromkeys(a.kind for a in artifacts)),
        "boxes": tuple(a.region for a in artifacts),
        "true_category": truth.category if truth else None,
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


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
    seed, cases = inputs.params.seed, inputs.params.report.cases
    ids, extra, failures = sample(rows, cases, np.random.default_rng([seed, number]), groups, column)
    facts = {"total": len(rows), "seed": seed, "cases": len(ids), "extra": extra, "failures": failures}
    keys = [*ids, *([extra] if extra else [])]
    records = fetch(evaluated(benchmark), keys)
    frame = inputs.predictions[benchmark]
    base, answers = frame[frame.method == UNTUNED].set_index("id"), rows.set_index("id")
    shown = []
    for key in keys:
        record, answer = records[key], answers.loc[key]
        untuned = base.loc[key] if key in base.index else None
        shown.append(
            Case(
                id=key,
                image=record.pil(),
                label=record.label,
                category=answer.category if isinstance(answer.category, str) else record.category,
                words=_text(answer.text),
                verdict=answer.verdict,
                reference=first_reference(_text(answer.reference)),
                question=record.question,
                base_words=None if untuned is None else _text(untuned.text),
                base_verdict=None if untuned is None else untuned.verdict,
                decides=not asks_about_part(record.question),
                chosen="failure" if key == extra else "random",
                **_artifacts(inputs, record.path),
            )
        )
    return Selection(shown, facts)


def fig5(inputs: Inputs) -> Selection:
    """Fakes of FakeClue's test split: animals, people, objects, documents, satellite (paper Fig. 5)."""
    rows = _answers(inputs, "fakeclue")
    rows = rows[(rows.label == 0) & rows.category.isin(FIG5_CATEGORIES)]
    return _select(inputs, "fakeclue", 5, rows, FIG5_CATEGORIES, "category")


def fig6(inputs: Inputs) -> Selection:
    """Questions of DD-VQA, fakes and real images (paper Fig. 6)."""
    return _select(inputs, "ddvqa", 6, _answers(inputs, "ddvqa"), ("fake", "real"), "truth")


def fig7(inputs: Inputs) -> Selection:
    """Real images of FakeClue's test split (paper Fig. 7)."""
    rows = _answers(inputs, "fakeclue")
    return _select(inputs, "fakeclue", 7, rows[rows.label == 1], CATEGORIES, "category")


@dataclass(frozen=True)
class Example:
    """Figure 2's example: a case, annotator → caption, and the numbers for its caption's sentence."""

    case: Case
    captions: dict[str, str]
    facts: dict[str, Any]


def fig2_example(inputs: Inputs) -> Example:
    """A fake of the training split that every annotator captioned, drawn at random (paper Fig. 2).

    Where the ground truth is known, a fake with visible artifacts.
    """
    names = [annotator.name for annotator in inputs.params.annotate.annotators]
    usable = inputs.candidates[inputs.candidates.outcome.isin(["ok", "truncated"])]
    captions = usable.groupby("id").annotator.nunique()
    train = inputs.fakeclue[(inputs.fakeclue.split == "train") & (inputs.fakeclue.label == 0)]
    ids = sorted(set(train.id) & set(captions.index[captions == len(names)]))
    ids = [i for i in ids if i in inputs.ground_truth and inputs.ground_truth[i].artifacts] or ids
    if not ids:
        raise UserError(
            "no fake of FakeClue's training split has a caption of every annotator",
            "look at artifacts/annotate/candidates.parquet, then dvc repro -f annotate",
        )
    seed = inputs.params.seed
    key = ids[int(np.random.default_rng([seed, 2]).integers(len(ids)))]
    record = fetch(evaluated("fakeclue").parent / "train", [key])[key]
    rows = usable[usable.id == key].set_index("annotator").text
    case = Case(
        id=key,
        image=record.pil(),
        label=record.label,
        category=record.category,
        words="",
        verdict="",
        reference=record.references[0] if record.references else "",
        **_artifacts(inputs, key),
    )
    by_name = {name: rows[name] for name in names if name in rows.index}
    return Example(case, by_name, {"seed": seed, "total": len(ids)})

"""Which cases are shown: drawn at random with the run's seed, always with a failure if there is one, never picked by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fakevlm.data.records import CATEGORIES
from fakevlm.errors import UserError
from fakevlm.evaluation.scores import asks_about_part
from fakevlm.reporting.case_figures import Case
from fakevlm.reporting.inputs import Inputs, evaluated, fetch
from fakevlm.reporting.words import LABELS

OWN, BASE = "FakeVLM", "LLaVA (untuned)"
FIG5_CATEGORIES = ("animal", "human", "object", "doc", "satellite")


@dataclass(frozen=True)
class Selection:
    """Cases, and a sentence that says how they were drawn."""

    cases: list[Case]
    how: str


def _own(inputs: Inputs, benchmark: str) -> pd.DataFrame:
    """FakeVLM's predictions, sorted by id, with the true label in words and whether the verdict is right.

    An answer about a part of a face gives no verdict on the image and so cannot fail.
    """
    frame = inputs.predictions[benchmark]
    own = frame[frame.method == OWN].sort_values("id", kind="stable", ignore_index=True)
    if own.empty and len(frame):
        raise UserError(
            f"the predictions of {benchmark} hold no answers of {OWN}",
            f"make them again: dvc repro -f evaluate@{benchmark}",
        )
    truth = own.label.map(LABELS)
    decides = ~own.question.fillna("").map(asks_about_part).astype(bool)
    return own.assign(truth=truth, right=(own.verdict == truth) | ~decides)


def draw(
    frame: pd.DataFrame, cases: int, rng: np.random.Generator, groups: Sequence[str], column: str = "category"
) -> tuple[list[str], str | None, int]:
    """Draws cases - 1 rows at random, in turn from each group, and one more among the failures not drawn yet.

    Args:
        frame: id, right, and `column`, sorted by id.
        groups: values of `column` in turn; rows of other groups are never drawn.

    Returns:
        ids in the order drawn, the id of the failure (None if every verdict is right), the number of failures.
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


def _cases(inputs: Inputs, benchmark: str, ids: list[str], extra: str | None) -> list[Case]:
    frame = inputs.predictions[benchmark]
    records = fetch(evaluated(benchmark), [*ids, *([extra] if extra else [])])
    by = {m: frame[frame.method == m].set_index("id") for m in (OWN, BASE)}
    cases = []
    for key in [*ids, *([extra] if extra else [])]:
        record, own = records[key], by[OWN].loc[key]
        base = by[BASE].loc[key] if key in by[BASE].index else None
        truth = inputs.ground_truth.get(record.path)
        artifacts = truth.artifacts if truth else []
        cases.append(
            Case(
                id=key,
                image=record.pil(),
                label=record.label,
                category=own.category if isinstance(own.category, str) else record.category,
                words=_text(own.text),
                verdict=own.verdict,
                reference=_first(_text(own.reference).split("\n")),  # several lie one a line
                question=record.question,
                base_words=_text(base.text) if base is not None else None,
                base_verdict=base.verdict if base is not None else None,
                kinds=tuple(dict.fromkeys(a.kind for a in artifacts)),
                boxes=tuple(a.region for a in artifacts),
                true_category=truth.category if truth else None,
                decides=not asks_about_part(record.question),
                chosen="failure" if key == extra else "random",
            )
        )
    return cases


def _first(references: list[str]) -> str:
    return references[0] + (f" (and {len(references) - 1} more)" if len(references) > 1 else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _select(
    inputs: Inputs,
    benchmark: str,
    number: int,
    keep: Callable[[pd.DataFrame], pd.Series],
    groups: Sequence[str],
    what: str,
    column: str = "category",
) -> Selection:
    own = _own(inputs, benchmark)
    own = own[keep(own)]
    if own.empty:
        return Selection([], "Not evaluated in this profile.")
    rng = np.random.default_rng([inputs.params.seed, number])
    ids, extra, failures = draw(own, inputs.params.report.cases, rng, groups, column)
    how = f"Drawn at random with seed {inputs.params.seed}: {len(ids)} {what}"
    if extra:
        how += f", and in the last row one of FakeVLM's {failures} failures among them, drawn at random too"
    elif failures == 0:
        how += "; FakeVLM fails on none of them"
    return Selection(_cases(inputs, benchmark, ids, extra), how + f" (of {len(own)}).")


def fig5(inputs: Inputs) -> Selection:
    """Fakes of FakeClue's test split: animals, people, objects, documents, satellite (paper Fig. 5)."""
    return _select(
        inputs,
        "fakeclue",
        5,
        lambda own: (own.label == 0) & own.category.isin(FIG5_CATEGORIES),
        FIG5_CATEGORIES,
        "fakes of FakeClue's test split, each category in turn",
    )


def fig6(inputs: Inputs) -> Selection:
    """Questions of DD-VQA, fakes and real images (paper Fig. 6)."""
    return _select(
        inputs,
        "ddvqa",
        6,
        lambda own: own.label.isin(LABELS),
        ("fake", "real"),
        "questions about DD-VQA's test frames, fakes and real ones in turn",
        column="truth",
    )


def fig7(inputs: Inputs) -> Selection:
    """Real images of FakeClue's test split (paper Fig. 7)."""
    return _select(
        inputs,
        "fakeclue",
        7,
        lambda own: own.label == 1,
        CATEGORIES,
        "real images of FakeClue's test split, each category in turn",
    )


@dataclass(frozen=True)
class Example:
    """Figure 2's example."""

    case: Case
    captions: dict[str, str]
    how: str


def fig2_example(inputs: Inputs) -> Example:
    """A fake of the training split that every annotator captioned, drawn at random (paper Fig. 2).

    Where the truth is known, a fake with visible artifacts.
    """
    names = [annotator.name for annotator in inputs.params.annotate.annotators]
    usable = inputs.candidates[inputs.candidates.outcome.isin(["ok", "truncated"])]
    said = usable.groupby("id").annotator.nunique()
    train = inputs.fakeclue[(inputs.fakeclue.split == "train") & (inputs.fakeclue.label == 0)]
    ids = sorted(set(train.id) & set(said.index[said == len(names)]))
    visible = [i for i in ids if i in inputs.ground_truth and inputs.ground_truth[i].artifacts]
    ids = visible or ids
    if not ids:
        raise UserError(
            "no fake of FakeClue's training split has a caption of every annotator",
            "look at artifacts/annotate/candidates.parquet, then dvc repro -f annotate",
        )
    rng = np.random.default_rng([inputs.params.seed, 2])
    key = ids[int(rng.integers(len(ids)))]
    record = fetch(evaluated("fakeclue").parent / "train", [key])[key]
    artifacts = inputs.ground_truth[key].artifacts if key in inputs.ground_truth else []
    rows = usable[usable.id == key].set_index("annotator").text
    case = Case(
        id=key,
        image=record.pil(),
        label=record.label,
        category=record.category,
        words="",
        verdict="",
        reference=record.references[0] if record.references else "",
        true_category=inputs.ground_truth[key].category if key in inputs.ground_truth else None,
        kinds=tuple(dict.fromkeys(a.kind for a in artifacts)),
        boxes=tuple(a.region for a in artifacts),
    )
    how = f"Drawn at random with seed {inputs.params.seed} of {len(ids)} fakes of the training split that every annotator captioned."
    return Example(case, {name: rows[name] for name in names if name in rows.index}, how)

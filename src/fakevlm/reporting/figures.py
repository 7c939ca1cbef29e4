"""Every figure of the report, and which cases Figures 2 and 5–7 show: drawn at random with the run's seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from fakevlm.data.shards import fetch
from fakevlm.errors import UserError
from fakevlm.evaluation.explanations import asks_about_part
from fakevlm.reporting import dataset_figures, score_figures
from fakevlm.reporting.case_figures import Case, cases, example
from fakevlm.reporting.inputs import Inputs, evaluated
from fakevlm.reporting.published import Published
from fakevlm.reporting.style import Picture
from fakevlm.reporting.texts import LABELS, METHOD, UNTUNED, fill, layout


@dataclass(frozen=True)
class Figure:
    """One figure of the report."""

    name: str  # the file's stem in figures/
    number: str  # e.g. `Figure 3`
    title: str  # in a few words, also for screen readers
    part: str  # the report's section: data, training, results or cases
    caption: str
    picture: Picture
    cases: list[Case]  # in part `cases` the page shows them as text and images instead of the picture
    dpi: int  # of the PNG


def draw_figures(inputs: Inputs, published: Published) -> list[Figure]:
    """Return all figures that the run has the data for, in the order of report.yaml."""
    fakeclue = inputs.scores[inputs.scores.benchmark == "fakeclue"]
    drawings: dict[str, Callable[[], Picture]] = {
        "fig2_sources": lambda: dataset_figures.sources(inputs.sources),
        "fig2_categories": lambda: dataset_figures.categories(inputs.fakeclue, published.released()),
        "fig2_confusion": lambda: dataset_figures.confusion(inputs.confusion),
        "fig2_clue_quality": lambda: dataset_figures.clue_quality(inputs.clue_quality),
        "fig2_agreement": lambda: dataset_figures.agreement(inputs.agreement),
        "fig3_paradigms": lambda: score_figures.paradigms(inputs.study),
        "training_curves": lambda: score_figures.training_curves(inputs.logs),
        "per_category": lambda: score_figures.per_category(fakeclue),
        "per_kind_recall": lambda: score_figures.per_kind(fakeclue),
        "robustness": lambda: score_figures.robustness(inputs.robustness),
    }
    figures = []
    for name, spec in layout()["figures"].items():
        if inputs.left_out.keys() & set(spec.get("needs", [])):
            continue
        shown: list[Case] = []
        facts: dict[str, Any] = {}
        if name in drawings:
            picture = drawings[name]()
        elif name == "fig2_example":
            case, captions, facts = annotated_example(inputs)
            picture = example(case, captions)
        else:
            shown, facts = draw_cases(inputs, **spec["cases"])
            picture = cases(shown)
        caption = fill(spec["caption"], what=spec.get("what", ""), **facts)
        texts = (spec[key] for key in ("number", "title", "part"))
        figures.append(Figure(name, *texts, caption, picture, shown, spec.get("dpi", 300)))
    return figures


def annotated_example(inputs: Inputs) -> tuple[Case, dict[str, str], dict[str, Any]]:
    """Return a fake of the training split that every annotator captioned, drawn at random (paper Fig. 2).

    Where the ground truth is known it has visible artifacts. With it come the captions by annotator, and the
    numbers for the figure's caption.
    """
    names = [annotator.name for annotator in inputs.params.annotate.annotators]
    usable = inputs.candidates[inputs.candidates.outcome.isin(["ok", "truncated"])]
    captions = usable.groupby("id").annotator.nunique()
    train = inputs.fakeclue[(inputs.fakeclue.split == "train") & (inputs.fakeclue.label == 0)]
    ids = sorted(set(train.id) & set(captions.index[captions == len(names)]))
    ids = [i for i in ids if i in inputs.ground_truths and inputs.ground_truths[i].artifacts] or ids
    if not ids:
        message = "no fake of FakeClue's training split has a caption of every annotator"
        raise UserError(message, "look at artifacts/annotate/candidates.parquet, then dvc repro -f annotate")
    seed = inputs.params.seed
    key = ids[int(np.random.default_rng([seed, 2]).integers(len(ids)))]
    record = fetch(evaluated("fakeclue").parent / "train", [key])[key]
    by_name = usable[usable.id == key].set_index("annotator").text[names].to_dict()
    return Case.of(record, inputs.ground_truths.get(record.path)), by_name, {"seed": seed, "total": len(ids)}


def draw_cases(
    inputs: Inputs, benchmark: str, seed: int, by: str, groups: Sequence[str], label_name: str | None = None
) -> tuple[list[Case], dict[str, Any]]:
    """Draw images of a benchmark with FakeVLM's answers, a failure among them if there is one.

    They are drawn in turn from the `groups`, values of `by` (`category` or `label_name`); with `label_name`
    fakes or real images alone. `seed` joins the run's, so that every figure draws its own. With the cases
    come the numbers for the caption that says how they were drawn.
    """
    frame = inputs.predictions[benchmark]
    answers = frame[frame.method == METHOD].sort_values("id", kind="stable", ignore_index=True)
    if answers.empty and len(frame):
        message = f"the predictions of {benchmark} hold no answers of {METHOD}"
        raise UserError(message, f"make them again: dvc repro -f evaluate@{benchmark}")
    answers["label_name"] = answers.label.map(LABELS)
    decides = ~answers.question.fillna("").map(asks_about_part).astype(bool)  # else it cannot fail
    answers["right"] = (answers.verdict == answers.label_name) | ~decides
    labels = [label_name] if label_name else LABELS.values()
    rows = answers[answers[by].isin(groups) & answers.label_name.isin(labels)]
    if rows.empty:
        return [], {"total": 0}
    rng = np.random.default_rng([inputs.params.seed, seed])
    ids, extra, failures = sample(rows, inputs.params.report.cases, rng, groups, by)
    facts = {"cases": len(ids), "extra": extra, "failures": failures}
    facts |= {"total": len(rows), "seed": inputs.params.seed}
    keys = [*ids, extra] if extra else ids
    records = fetch(evaluated(benchmark), keys)
    base = frame[frame.method == UNTUNED].set_index("id").fillna({"text": ""})
    rows = rows.set_index("id").fillna({"text": "", "reference": ""})
    shown = [
        Case.of(
            records[key],
            inputs.ground_truths.get(records[key].path),
            category=rows.category[key] if pd.notna(rows.category[key]) else records[key].category,
            words=rows.text[key],
            verdict=rows.verdict[key],
            reference=_first(rows.reference[key]),
            base_words=base.text.get(key),
            base_verdict=base.verdict.get(key),
            decides=not asks_about_part(records[key].question),
            chosen="failure" if key == extra else "random",
        )
        for key in keys
    ]
    return shown, facts


def sample(
    frame: pd.DataFrame, cases: int, rng: np.random.Generator, groups: Sequence[str], by: str = "category"
) -> tuple[list[str], str | None, int]:
    """Draw cases - 1 rows at random, in turn from each group, and one more among the failures not drawn yet.

    Of a frame with id (sorted), right and `by`, return the ids in the order drawn, the id of the failure
    (None without one) and the number of failures.
    """
    pools = [rng.permutation(frame[frame[by] == group].id.to_numpy(dtype=object)) for group in groups]
    turns = [key for turn in zip_longest(*pools) for key in turn if key is not None]
    failures = frame[~frame.right].id.tolist()
    chosen = turns[: cases - 1 if failures and cases > 1 else cases]
    left = [key for key in failures if key not in chosen]
    extra = left[int(rng.integers(len(left)))] if left and len(chosen) < cases else None
    return chosen, extra, len(failures)


def _first(text: str) -> str:
    """Return the first of the references that stand one a line, and how many more there are."""
    first, *more = text.split("\n")
    return f"{first} (and {len(more)} more)" if more else first

"""Draws every table and figure and the report's page from the stages' artifacts into figures/."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.progress import track
from fakevlm.reporting import dataset_figures, page, score_figures, selection, style
from fakevlm.reporting.arithmetic import checks, mixtures
from fakevlm.reporting.averages import average_auc
from fakevlm.reporting.case_figures import cases, example
from fakevlm.reporting.conclusions import Conclusion, conclusions, order, tally
from fakevlm.reporting.inputs import Inputs, load_inputs
from fakevlm.reporting.page import Figure
from fakevlm.reporting.published import Published, load_published
from fakevlm.reporting.tables import ReportTable, annotators, build_tables, cell, markdown
from fakevlm.reporting.texts import BENCHMARKS, METHOD, count, fill, layout, sentences

SUFFIXES = (".csv", ".md", ".png", ".svg", ".html")


@dataclass(frozen=True)
class Report:
    """What was made, for the notebook to show.

    Attributes:
        tables: Tables 1–8, in order.
        figures: every figure, in the page's order.
        conclusions: the paper's conclusions beside this run.
        page: the path of report.html.
    """

    tables: list[ReportTable]
    figures: list[Figure]
    conclusions: list[Conclusion]
    page: Path


def _example(inputs: Inputs) -> dict[str, Any]:
    shown = selection.fig2_example(inputs)
    case = shown.case
    picture = example(case.image, shown.captions, case.reference, title=case.about(), boxes=case.boxes)
    return {"picture": picture, "facts": shown.facts}


def _cases(selected: selection.Selection) -> dict[str, Any]:
    return {"picture": cases(selected.cases), "facts": selected.facts, "cases": selected.cases}


def draw_figures(inputs: Inputs, published: Published) -> list[Figure]:
    """All figures that the run has the data for, in the order of report.yaml."""
    fakeclue = inputs.scores[inputs.scores.benchmark == "fakeclue"]
    drawings: dict[str, Callable[[], Any]] = {
        "fig2_sources": lambda: dataset_figures.sources(inputs.sources),
        "fig2_categories": lambda: dataset_figures.categories(inputs.fakeclue, published.release.frame()),
        "fig2_example": lambda: _example(inputs),
        "fig2_confusion": lambda: dataset_figures.confusion(inputs.confusion),
        "fig2_clue_quality": lambda: dataset_figures.clue_quality(inputs.clue_quality),
        "fig2_agreement": lambda: dataset_figures.agreement(inputs.agreement),
        "fig3_paradigms": lambda: score_figures.paradigms(inputs.study),
        "training_curves": lambda: score_figures.training_curves(inputs.logs),
        "per_category": lambda: score_figures.per_category(fakeclue),
        "per_kind_recall": lambda: score_figures.per_kind(fakeclue),
        "robustness": lambda: score_figures.robustness(inputs.robustness),
        "fig5_cases": lambda: _cases(selection.fig5(inputs)),
        "fig6_ddvqa_cases": lambda: _cases(selection.fig6(inputs)),
        "fig7_real_cases": lambda: _cases(selection.fig7(inputs)),
    }
    figures = []
    for name, spec in layout()["figures"].items():
        if inputs.left_out.keys() & set(spec.get("needs", [])):
            continue
        made = drawings[name]()
        made = made if isinstance(made, dict) else {"picture": made, "facts": {}}
        caption = fill(spec["caption"], what=spec.get("what", ""), **made.pop("facts"))
        texts = {key: spec[key] for key in ("number", "title", "part")}
        figures.append(Figure(name, **texts, caption=caption, dpi=spec.get("dpi", 300), **made))
    return figures


def _tiles(tables: list[ReportTable]) -> list[dict[str, str]]:
    """FakeVLM's main numbers, this run's with its interval beside the paper's."""
    tiles = []
    for number, key, name in layout()["tiles"]:
        tidy = next(table.tidy for table in tables if table.number == number.replace("table", "Table "))
        where = dict(zip(("benchmark", "subset", "metric"), key.split("/"), strict=True))
        run, paper = (cell(tidy, method=METHOD, source=source, **where) for source in ("run", "paper"))
        if run != "–":
            value, _, interval = run.partition(" ")
            tiles.append({"name": name, "value": value, "interval": interval, "paper": paper})
    return tiles


def _never_named(inputs: Inputs) -> list[str]:
    """Kinds of artifact in FakeClue's test split that no explanation of FakeVLM names."""
    scores = inputs.scores
    part = scores[(scores.benchmark == "fakeclue") & (scores.method == METHOD)]
    part = part[(part.metric == "clue_recall") & part.subset.str.startswith("kind=") & (part.value == 0)]
    return sorted(part.subset.str.removeprefix("kind=").str.replace("_", " "))


def _facts(inputs: Inputs, published: Published) -> dict[str, Any]:
    """What the slots of `remarks` and `settings` in report.yaml name."""
    params, tune = inputs.params, inputs.params.training
    names = [annotator.name for annotator in params.annotate.annotators]
    parts = {"vision tower": "train_vision", "projector": "train_projector", "LLM": "train_llm"}
    return {
        "params": params,
        "paper": {key: setting.value for key, setting in published.training.items()}
        | {"released_rate": published.training["learning_rate"].released},
        "observers": any(a.backend == "observer" for a in params.annotate.annotators),
        "ground_truth": inputs.ground_truth,
        "weights": inputs.weights,
        "annotators": names,
        "backends": annotators(inputs),
        "aggregator": getattr(params.annotate, "aggregator", None),  # no aggregator where texts are released
        "vision": inputs.config.get("vision_config", {}),
        "text": inputs.config.get("text_config", {}),
        "sizes": {s: int((inputs.fakeclue.split == s).sum()) for s in ("train", "val", "test")},
        "released": published.release.frame().groupby("split").n.sum().to_dict(),
        "tune": tune,
        "tuned": [name for name, switch in parts.items() if tune and getattr(tune, switch)],
    }


def _counts(inputs: Inputs) -> list[tuple[str, str]]:
    """(what, how many) of the run's data: collected, quarantined, dropped, asked."""
    same = int((inputs.leakage["kind"] == "content").sum())
    numbers = {
        "collected": inputs.sources.n.sum(),
        "quarantined": len(inputs.quarantine),
        "duplicates": len(inputs.duplicates),
        "same": same,
        "alike": len(inputs.leakage) - same,
        "captions": len(inputs.candidates),
        "images": len(inputs.fakeclue),
        "known": len(inputs.ground_truth),
        "answers": sum(len(frame) for frame in inputs.predictions.values()),
    }
    return [(what, count(numbers[key])) for what, key in layout()["counts"]]


def _clear(folder: Path) -> None:
    """Remove what an earlier run drew and this one may not; leave anything else in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in SUFFIXES:
            file.unlink()
        elif file.is_dir() and file.name == ".ipynb_checkpoints":
            shutil.rmtree(file)


def build(params: Params) -> Report:
    """Write every table (.csv, .md), figure (.png, .svg) and report.html into figures/, emptied first.

    Raises:
        UserError: a stage's artifact is missing or does not fit; the message names the stage to run.
    """
    inputs, published = load_inputs(params), load_published()
    average = average_auc(inputs.predictions["ffpp"], params.evaluate.bootstrap, params.seed)
    tables = build_tables(inputs, published, average)
    figures = draw_figures(inputs, published)
    compared = conclusions(inputs, average, published)
    facts = _facts(inputs, published)

    folder = paths.figures()
    _clear(folder)
    for table in tables:
        table.tidy.to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
        (folder / f"{table.name}.md").write_text(markdown(table, params.profile), encoding="utf-8")
    for figure in track(figures, "figures", unit="figure"):
        style.save(figure.picture, folder, figure.name, figure.dpi)
    studied = [b for b in BENCHMARKS if b in set(inputs.study.benchmark)]
    text = page.render(
        figures,
        profile=params.profile,
        seed=params.seed,
        paper=published.paper,
        tables=tables,
        tiles=_tiles(tables),
        remarks=sentences(layout()["remarks"], **facts),
        conclusions=compared,
        tally=tally(compared),
        orders=[(BENCHMARKS[b], ", ".join(order(inputs.study, b))) for b in studied],
        never_named=_never_named(inputs),
        contradictions=published.contradictions(),
        checks=checks(published),
        mixtures=mixtures(published),
        settings=[[fill(text, **facts) for text in row] for row in layout()["settings"]],
        left_out=list(inputs.left_out.values()),
        counts=_counts(inputs),
        parameters=params.model_dump(),
    )
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    return Report(tables, figures, compared, file)

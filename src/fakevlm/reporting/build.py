"""Draws every table and figure and the report's page from the stages' artifacts into figures/."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.progress import track
from fakevlm.reporting import dataset_figures, page, score_figures, selection, style
from fakevlm.reporting.arithmetic import checks, mixtures
from fakevlm.reporting.averages import average_auc
from fakevlm.reporting.case_figures import cases, example
from fakevlm.reporting.conclusions import Conclusion, conclusions, order, tally
from fakevlm.reporting.inputs import SPLITS, Inputs, load_inputs
from fakevlm.reporting.page import Figure
from fakevlm.reporting.published import Published, load_published
from fakevlm.reporting.style import Picture
from fakevlm.reporting.tables import ReportTable, annotators, build_tables, cell, markdown
from fakevlm.reporting.texts import BENCHMARKS, METHOD, fill, layout, sentences

SUFFIXES = (".csv", ".md", ".png", ".svg", ".html")


@dataclass(frozen=True)
class Report:
    """What was written, for the notebook to show; figures in the page's order, `page` is report.html."""

    tables: list[ReportTable]
    figures: list[Figure]
    conclusions: list[Conclusion]
    page: Path


def draw_figures(inputs: Inputs, published: Published) -> list[Figure]:
    """Return all figures that the run has the data for, in the order of report.yaml."""
    fakeclue = inputs.scores[inputs.scores.benchmark == "fakeclue"]
    drawings: dict[str, Callable[[], Picture]] = {
        "fig2_sources": lambda: dataset_figures.sources(inputs.sources),
        "fig2_categories": lambda: dataset_figures.categories(inputs.fakeclue, published.release.frame()),
        "fig2_confusion": lambda: dataset_figures.confusion(inputs.confusion),
        "fig2_clue_quality": lambda: dataset_figures.clue_quality(inputs.clue_quality),
        "fig2_agreement": lambda: dataset_figures.agreement(inputs.agreement),
        "fig3_paradigms": lambda: score_figures.paradigms(inputs.study),
        "training_curves": lambda: score_figures.training_curves(inputs.logs),
        "per_category": lambda: score_figures.per_category(fakeclue),
        "per_kind_recall": lambda: score_figures.per_kind(fakeclue),
        "robustness": lambda: score_figures.robustness(inputs.robustness),
    }
    selections = {
        "fig2_example": selection.fig2_example,
        "fig5_cases": selection.fig5,
        "fig6_ddvqa_cases": selection.fig6,
        "fig7_real_cases": selection.fig7,
    }
    figures = []
    for name, spec in layout()["figures"].items():
        if inputs.left_out.keys() & set(spec.get("needs", [])):
            continue
        if name in drawings:
            selected, picture = selection.Selection([], {}), drawings[name]()
        else:
            selected = selections[name](inputs)
            picture = (
                example(*selected.cases, selected.captions) if selected.captions else cases(selected.cases)
            )
        caption = fill(spec["caption"], what=spec.get("what", ""), **selected.facts)
        texts = (spec[key] for key in ("number", "title", "part"))
        figures.append(Figure(name, *texts, caption, picture, selected.cases, spec.get("dpi", 300)))
    return figures


def _tiles(tables: list[ReportTable]) -> list[dict[str, str]]:
    """Return FakeVLM's main numbers (name, run, paper), as far as this run measured them."""
    tidy, tiles = {table.number: table.tidy for table in tables}, []
    for number, key, name in layout()["tiles"]:
        where = dict(zip(("benchmark", "subset", "metric"), key.split("/"), strict=True), method=METHOD)
        tile = {source: cell(tidy[number], source=source, **where) for source in ("run", "paper")}
        tiles.append(tile | {"name": name})
    return [tile for tile in tiles if tile["run"] != "–"]


def _never_named(inputs: Inputs) -> list[str]:
    """Return the kinds of artifact in FakeClue's test split that no explanation of FakeVLM names."""
    scores = inputs.scores
    part = scores[(scores.benchmark == "fakeclue") & (scores.method == METHOD)]
    part = part[(part.metric == "clue_recall") & part.subset.str.startswith("kind=") & (part.value == 0)]
    return sorted(part.subset.str.removeprefix("kind=").str.replace("_", " "))


def _clear(folder: Path) -> None:
    """Remove what an earlier run drew and this one may not; leave anything else in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / ".ipynb_checkpoints", ignore_errors=True)
    for file in [file for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")]:
        file.unlink()


def build(params: Params) -> Report:
    """Write every table (.csv, .md), figure (.png, .svg) and report.html into figures/, emptied first.

    Raises:
        UserError: a stage's artifact is missing or does not fit; the message names the stage to run.
    """
    inputs, published = load_inputs(params), load_published()
    average = average_auc(inputs.predictions["ffpp"], params.evaluate.bootstrap, params.seed)
    tables = build_tables(inputs, published, average)
    figures, compared = draw_figures(inputs, published), conclusions(inputs, average, published)
    facts = {  # what the slots of `remarks`, `settings` and `counts` in report.yaml name
        "params": params,
        "tune": params.training,
        "inputs": inputs,
        "paper": published.training,
        "annotators": [annotator.name for annotator in params.annotate.annotators],
        "backends": annotators(inputs),
        "sizes": {split: int((inputs.fakeclue.split == split).sum()) for split in SPLITS},
        "released": published.release.frame().groupby("split").n.sum().to_dict(),
    }

    folder = paths.figures()
    _clear(folder)
    for table in tables:
        table.tidy.to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
        (folder / f"{table.name}.md").write_text(markdown(table, params.profile), encoding="utf-8")
    for figure in track(figures, "figures", unit="figure"):
        style.save(figure.picture, folder, figure.name, figure.dpi)
    studied = [b for b in BENCHMARKS if b in set(inputs.study.benchmark)]
    text = page.render(
        params.model_dump(),
        figures=figures,
        profile=params.profile,
        seed=params.seed,
        paper=published.paper,
        tables=tables,
        tiles=_tiles(tables),
        remarks=sentences(layout()["remarks"], **facts),
        conclusions=compared,
        tally=tally(compared),
        orders={BENCHMARKS[benchmark]: order(inputs.study, benchmark) for benchmark in studied},
        never_named=_never_named(inputs),
        contradictions=published.contradictions(),
        checks=checks(published),
        mixtures=mixtures(published),
        settings=[[fill(text, **facts) for text in row] for row in layout()["settings"]],
        left_out=list(inputs.left_out.values()),
        counts=[[fill(text, **facts) for text in row] for row in layout()["counts"]],
    )
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    return Report(tables, figures, compared, file)

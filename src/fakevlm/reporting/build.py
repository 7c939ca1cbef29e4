"""Draws every table and figure and the report's page from the stages' artifacts into figures/."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.progress import track
from fakevlm.reporting import claims, page, settings, style, tables
from fakevlm.reporting.averages import average_auc
from fakevlm.reporting.figures import draw_figures
from fakevlm.reporting.findings import VERDICTS, Finding, findings, order
from fakevlm.reporting.inputs import Inputs, load_inputs
from fakevlm.reporting.markdown import markdown
from fakevlm.reporting.page import Drawn, Tile
from fakevlm.reporting.published import Published, load_published
from fakevlm.reporting.table1 import table1
from fakevlm.reporting.tables import ReportTable, fmt
from fakevlm.reporting.words import BENCHMARKS

TRAINED = (
    "CNNSpot",
    "UnivFD",
    "Frequency",
)  # the expert detectors of stage experts, as evaluate.methods names them
SUFFIXES = (".csv", ".md", ".png", ".svg", ".html")


@dataclass(frozen=True)
class Report:
    """What was made, for the notebook to show.

    Attributes:
        tables: Tables 1–6, in order.
        figures: every figure, in the page's order.
        findings: the paper's conclusions beside this run.
        page: the path of report.html.
    """

    tables: list[ReportTable]
    figures: list[Drawn]
    findings: list[Finding]
    page: Path


def make_tables(inputs: Inputs, published: Published, average: pd.DataFrame) -> list[ReportTable]:
    """Tables 1–6."""
    scores, profile = inputs.scores, inputs.params.profile
    trained = [name for name in inputs.params.evaluate.methods if name in TRAINED]
    return [
        table1(published, inputs.fakeclue, inputs.params),
        tables.table2(published, scores, profile),
        tables.table3(published, scores, profile, trained),
        tables.table4(published, scores, profile),
        tables.table5(published, scores, average, profile, trained, _videos(inputs.predictions["ffpp"])),
        tables.table6(published, scores, profile),
    ]


def _videos(predictions: pd.DataFrame) -> int:
    """How many videos, with their manipulations, the frames of FF++ come from."""
    return predictions["item"].nunique()


def _tiles(all_tables: list[ReportTable]) -> list[Tile]:
    """FakeVLM's main numbers, taken from the tables."""
    wanted = [
        (1, "fakeclue", "all", "acc", "FakeClue, accuracy"),
        (1, "loki", "all", "acc", "LOKI, accuracy"),
        (2, "dmimage", "Overall", "acc", "DMimage, accuracy"),
        (3, "ddvqa", "all", "acc", "DD-VQA, accuracy"),
        (4, "ffpp", "Average", "auc", "FF++, AUC, mean of four"),
        (1, "fakeclue", "all", "rouge_l", "FakeClue, ROUGE-L"),
        (1, "fakeclue", "all", "clue_precision", "FakeClue, clue precision"),
        (1, "fakeclue", "all", "clue_recall", "FakeClue, clue recall"),
    ]
    tiles = []
    for index, benchmark, subset, metric, name in wanted:
        tidy = all_tables[index].tidy
        part = tidy[
            (tidy.method == tables.OWN)
            & (tidy.benchmark == benchmark)
            & (tidy.subset == subset)
            & (tidy.metric == metric)
        ]
        run, paper = part[part.source == "run"], part[part.source == "paper"]
        if run.empty:
            continue
        row = run.iloc[0]
        text = fmt(row.value, row.ci_low, row.ci_high)
        value, _, interval = text.partition(" ")
        printed = fmt(paper.value.iloc[0]) if len(paper) else "not measured"
        tiles.append(Tile(name, value, interval, printed))
    return tiles


def _never_named(scores: pd.DataFrame) -> list[str]:
    part = scores[
        (scores.benchmark == "fakeclue") & (scores.method == tables.OWN) & (scores.metric == "clue_recall")
    ]
    part = part[part.subset.str.startswith("kind=") & (part.value == 0)]
    return sorted(part.subset.str.removeprefix("kind=").str.replace("_", " "))


def _tally(found: list[Finding]) -> str:
    numbers = Counter(f.verdict for f in found)
    parts = [f"{numbers[verdict]} × {verdict}" for verdict in VERDICTS if numbers[verdict]]
    return f"Of {len(found)}: {'; '.join(parts)}."


def build(params: Params) -> Report:
    """Writes every table (.csv, .md), every figure (.png, .svg) and report.html into figures/, which it first empties of them.

    Raises:
        UserError: a stage's artifact is missing or does not fit; the message names the stage to run.
    """
    inputs, published = load_inputs(params), load_published()
    average = average_auc(inputs.predictions["ffpp"], params.evaluate.bootstrap, params.seed)
    all_tables = make_tables(inputs, published, average)
    figures = draw_figures(inputs, published)
    found = findings(inputs.scores, average, inputs.study, inputs.clue_quality, published)

    folder = paths.figures()
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir()):
        # What an earlier run drew and this one does not must not stay; anything else in the folder is not ours.
        if old.is_file() and old.suffix in SUFFIXES:
            old.unlink()
        elif old.is_dir() and old.name == ".ipynb_checkpoints":
            shutil.rmtree(old)
    for table in all_tables:
        table.tidy.to_csv(folder / f"{table.name}.csv", index=False, lineterminator="\n")
        (folder / f"{table.name}.md").write_text(markdown(table, params.profile), encoding="utf-8")
    for drawn in track(figures, "figures", unit="figure"):
        style.save(drawn.picture, folder, drawn.name, drawn.dpi)
    text = page.render(
        figures,
        profile=params.profile,
        seed=params.seed,
        paper=published.paper,
        tables=all_tables,
        tiles=_tiles(all_tables),
        remarks=settings.remarks(inputs),
        findings=found,
        tally=_tally(found),
        orders=[
            (name, ", ".join(order(inputs.study, b)))
            for b, name in BENCHMARKS.items()
            if b in set(inputs.study.benchmark)
        ],
        never_named=_never_named(inputs.scores),
        contradictions=published.contradictions(),
        checks=claims.checks(published),
        mixtures=claims.mixtures(published),
        settings=settings.settings(inputs, published),
        left_out=list(inputs.left_out.values()),
        counts=settings.counts(inputs),
        parameters=params.model_dump(),
    )
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    return Report(all_tables, figures, found, file)

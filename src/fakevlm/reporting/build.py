"""Draws every table and figure and the report's page from the stages' artifacts into figures/."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fakevlm import paths
from fakevlm.params import Params
from fakevlm.progress import track
from fakevlm.reporting import claims, dataset_figures, page, score_figures, selection, settings, style, tables
from fakevlm.reporting.averages import average_auc
from fakevlm.reporting.case_figures import cases
from fakevlm.reporting.example_figure import example
from fakevlm.reporting.findings import Finding, findings, order
from fakevlm.reporting.inputs import Inputs, load_inputs
from fakevlm.reporting.markdown import markdown
from fakevlm.reporting.page import Drawn, Tile
from fakevlm.reporting.published import Published, load_published
from fakevlm.reporting.table1 import table1
from fakevlm.reporting.tables import ReportTable, fmt
from fakevlm.reporting.words import BENCHMARKS

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
    return [
        table1(published, inputs.fakeclue, inputs.params),
        tables.table2(published, scores, profile),
        tables.table3(published, scores, profile),
        tables.table4(published, scores, profile),
        tables.table5(published, scores, average, profile),
        tables.table6(published, scores, profile),
    ]


def _data(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "fig2_sources",
            "Figure 2, sources",
            "Where the images come from",
            "Images of this run by source and label, with each source's share, and what made the fakes. The paper takes about "
            "80 % from GenImage, FF++ and Chameleon.",
            dataset_figures.sources(inputs.sources),
            "data",
        ),
        Drawn(
            "fig2_categories",
            "Figure 2, categories",
            "What the images show",
            "FakeClue's images of this run by category and label, and each category's share beside the released FakeClue's.",
            dataset_figures.categories(inputs.fakeclue, published.release.frame()),
            "data",
        ),
    ]


def _example(inputs: Inputs, published: Published) -> list[Drawn]:
    shown = selection.fig2_example(inputs)
    case = shown.case
    picture = example(case.image, shown.captions, case.reference, title=case.about(), boxes=case.boxes)
    return [
        Drawn(
            "fig2_example",
            "Figure 2, example",
            "One image, its captions and their aggregate",
            f"What each annotator wrote about one image, and the aggregate that becomes the training answer. {shown.how}",
            picture,
            "data",
            dpi=220,
        )
    ]


def _sorting(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "fig2_confusion",
            "Figure 2, sorting",
            "How well the category classifier sorts",
            "Images without a category of their own, sorted by EVA-02, against their true category where it is known. Rows sum to 100 %.",
            dataset_figures.confusion(inputs.confusion),
            "data",
        )
    ]


def _annotators(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "fig2_clue_quality",
            "Figure 2, clue quality",
            "Clues before and after aggregation",
            "Precision, recall and F1 of the artifacts that each annotator names, and of the aggregate, against the true ones.",
            dataset_figures.clue_quality(inputs.clue_quality),
            "data",
        ),
        Drawn(
            "fig2_agreement",
            "Figure 2, agreement",
            "How far annotators agree",
            "Agreement of each pair of annotators on the artifacts that they name in fakes: mean Jaccard index over images of which "
            "one of the two names something, and Cohen's κ over all decisions.",
            dataset_figures.agreement(inputs.agreement),
            "data",
        ),
    ]


def _study(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "fig3_paradigms",
            "Figure 3",
            "Four ways to use a language model as a detector",
            "Asking the frozen model, a linear probe on its frozen features (of the vision tower, of the language model's last layer), "
            "tuning on fixed real/fake answers, tuning on explanations. The paper prints no values for this figure.",
            score_figures.paradigms(inputs.study),
            "training",
        )
    ]


def _training(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "training_curves",
            "Training",
            "Loss and learning rate",
            "Loss of full-parameter tuning on explanatory text (mean over answer tokens) and with a linear head (binary cross-entropy): "
            "thin lines as logged, thick ones a running median; the two losses have different units.",
            score_figures.training_curves(inputs.logs),
            "training",
        )
    ]


def _results(inputs: Inputs, published: Published) -> list[Drawn]:
    fakeclue = inputs.scores[inputs.scores.benchmark == "fakeclue"]
    return [
        Drawn(
            "per_category",
            "By category",
            "Accuracy on FakeClue by category",
            "Accuracy of every method of this run on FakeClue's test split by category, with 95 % intervals; the dashed line is one half. A method that never gives a verdict has accuracy 0 and is named, not drawn.",
            score_figures.per_category(fakeclue),
            "results",
        ),
        Drawn(
            "per_kind_recall",
            "By kind of artifact",
            "How often each kind of artifact is named",
            "Of the fakes in FakeClue's test split that show a kind of artifact, the share whose explanation by FakeVLM names it, with "
            "95 % intervals. A fake that is called real names none.",
            score_figures.per_kind(fakeclue),
            "results",
        ),
    ]


def _robustness(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "robustness",
            "Robustness",
            "Scores under perturbation",
            "Accuracy, AUC and (of those that explain) clue recall on a sample of FakeClue's test split under perturbations of growing "
            "strength, from left to right; “–” is the untouched image. Bands are 95 % intervals, dashed lines one half. The paper's own "
            "table could not be retrieved.",
            score_figures.robustness(inputs.robustness, ("acc", "auc", "clue_recall")),
            "results",
        )
    ]


def _cases(inputs: Inputs, published: Published) -> list[Drawn]:
    drawn = []
    for name, number, title, pick in (
        ("fig5_cases", "Figure 5", "Fakes: animals, people, objects, documents, satellite", selection.fig5),
        ("fig6_ddvqa_cases", "Figure 6", "Questions about faces (DD-VQA)", selection.fig6),
        ("fig7_real_cases", "Figure 7", "Real images", selection.fig7),
    ):
        chosen = pick(inputs)
        caption = (
            "FakeVLM's answer and verdict, the reference, and what the untuned base says; ✓ and ✗ mark verdicts against the truth. "
            + chosen.how
        )
        drawn.append(Drawn(name, number, title, caption, cases(chosen.cases), "cases", chosen.cases, dpi=180))
    return drawn


# Every figure in the page's order, by what it cannot be drawn without (a key of `Inputs.left_out`).
FIGURES = (
    (None, _data),
    ("annotators", _example),
    ("categorize", _sorting),
    ("annotators", _annotators),
    ("study", _study),
    ("finetune", _training),
    (None, _results),
    ("robustness", _robustness),
    (None, _cases),
)


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
    order_ = ("agrees", "agrees, not clearly", "differs, not clearly", "differs", "not measured")
    parts = [f"{numbers[v]} × {v}" for v in order_ if numbers[v]]
    return f"Of {len(found)}: {'; '.join(parts)}."


def build(params: Params) -> Report:
    """Writes every table (.csv, .md), every figure (.png, .svg) and report.html into figures/, which it first empties of them.

    Raises:
        UserError: a stage's artifact is missing or does not fit; the message names the stage to run.
    """
    inputs, published = load_inputs(params), load_published()
    average = average_auc(inputs.predictions["ffpp"], params.evaluate.bootstrap, params.seed)
    all_tables = make_tables(inputs, published, average)
    figures = [
        drawn
        for needed, draw in FIGURES
        if needed not in inputs.left_out
        for drawn in draw(inputs, published)
    ]
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

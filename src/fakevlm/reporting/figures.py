"""Every figure of the report: from which table it is drawn, its caption, and what it cannot be drawn without."""

from collections.abc import Callable

from fakevlm.reporting import dataset_figures, score_figures, selection
from fakevlm.reporting.case_figures import cases
from fakevlm.reporting.example_figure import example
from fakevlm.reporting.inputs import Inputs
from fakevlm.reporting.page import Drawn
from fakevlm.reporting.published import Published

Draw = Callable[[Inputs, Published], list[Drawn]]
Pick = Callable[[Inputs], selection.Selection]


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


def _clue_quality(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
        Drawn(
            "fig2_clue_quality",
            "Figure 2, clue quality",
            "Clues before and after aggregation",
            "Precision, recall and F1 of the artifacts that each annotator names, and of the aggregate, against the true ones.",
            dataset_figures.clue_quality(inputs.clue_quality),
            "data",
        )
    ]


def _agreement(inputs: Inputs, published: Published) -> list[Drawn]:
    return [
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
        )
    ]


def _kinds(inputs: Inputs, published: Published) -> list[Drawn]:
    fakeclue = inputs.scores[inputs.scores.benchmark == "fakeclue"]
    return [
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
            "Accuracy and AUC on a sample of FakeClue's test split under perturbations of growing strength, from left to right; “–” "
            "is the untouched image. Bands are 95 % intervals, dashed lines one half. The paper's own table could not be retrieved.",
            score_figures.robustness(inputs.robustness),
            "results",
        )
    ]


def _cases(name: str, number: str, title: str, pick: Pick) -> Draw:
    def draw(inputs: Inputs, published: Published) -> list[Drawn]:
        chosen = pick(inputs)
        caption = (
            "FakeVLM's answer and verdict, the reference, and what the untuned base says; ✓ and ✗ mark verdicts against the truth. "
            + chosen.how
        )
        return [Drawn(name, number, title, caption, cases(chosen.cases), "cases", chosen.cases, dpi=180)]

    return draw


_FIG5 = "Fakes: animals, people, objects, documents, satellite"
# Every figure in the page's order, with what it cannot be drawn without (keys of `Inputs.left_out`).
FIGURES: tuple[tuple[tuple[str, ...], Draw], ...] = (
    ((), _data),
    (("annotators",), _example),
    (("categorize",), _sorting),
    (("annotators", "truth"), _clue_quality),
    (("annotators",), _agreement),
    (("study",), _study),
    (("finetune",), _training),
    ((), _results),
    (("truth",), _kinds),
    (("robustness",), _robustness),
    ((), _cases("fig5_cases", "Figure 5", _FIG5, selection.fig5)),
    (("ddvqa",), _cases("fig6_ddvqa_cases", "Figure 6", "Questions about faces (DD-VQA)", selection.fig6)),
    ((), _cases("fig7_real_cases", "Figure 7", "Real images", selection.fig7)),
)


def draw_figures(inputs: Inputs, published: Published) -> list[Drawn]:
    """All figures that the run has the data for."""
    return [
        drawn
        for needed, draw in FIGURES
        if not inputs.left_out.keys() & set(needed)
        for drawn in draw(inputs, published)
    ]

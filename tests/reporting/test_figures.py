"""Every figure: drawn from made-up data, same bytes each time, small, and with no words over one another."""

import io
import itertools
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

import madeup
from fakevlm.reporting import dataset_figures, score_figures, style
from fakevlm.reporting.case_figures import Case, cases, enlarged, example, mark
from fakevlm.reporting.published import load_published
from fakevlm.reporting.style import Picture
from fakevlm.reporting.wrap import width, wrap

LONG = (
    "Texture: the surface of the animal is overly smooth and waxy, like plastic without any grain at all; "
    * 12
)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return madeup.make(tmp_path_factory.mktemp("root"))


def photo(seed: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(madeup.picture(np.random.default_rng(seed))))


def case(**changes) -> Case:
    values = {
        "id": "a.jpg",
        "image": photo(),
        "label": 0,
        "category": "animal",
        "words": "This is a fake image. It costs $5 or $6 and <b>more</b>.",
        "verdict": "fake",
        "reference": "This is a fake image. Geometry: the animal has an extra part.",
        "base_words": "A round thing.",
        "base_verdict": "unparsed",
        "kinds": ("extra_part", "halo"),
        "boxes": ((0.1, 0.2, 0.5, 0.6),),
    }
    return Case(**{**values, **changes})


def drawings(folder: Path) -> dict[str, Picture]:
    """Every figure of the project, once as it comes and some in awkward cases."""

    def read(*parts: str) -> pd.DataFrame:
        return pd.read_csv(folder.joinpath(*parts))

    images = pd.DataFrame({"category": list(madeup.CATEGORIES) * 9, "label": [0, 1, 0] * 21})
    scores = read("evaluate", "fakeclue", "scores.csv")
    logs = {name: read("finetune", name, "log.csv") for name in ("explanation", "head")}
    captions = {"Qwen2-VL": "A short one.", "InternVL2": LONG, "DeepSeek-VL2": "Fake: $halo$ over it."}
    return {
        "sources": dataset_figures.sources(read("collect", "sources.csv")),
        "categories": dataset_figures.categories(images, load_published().release.frame()),
        "categories alone": dataset_figures.categories(images),
        "confusion": dataset_figures.confusion(read("categorize", "confusion.csv")),
        "clue_quality": dataset_figures.clue_quality(read("annotate", "clue_quality.csv")),
        "agreement": dataset_figures.agreement(read("annotate", "agreement.csv")),
        "paradigms": score_figures.paradigms(read("study", "scores.csv")),
        "training_curves": score_figures.training_curves(logs),
        "robustness": score_figures.robustness(read("robustness", "scores.csv")),
        "per_category": score_figures.per_category(scores),
        "per_kind": score_figures.per_kind(scores),
        "example": example(
            photo(), captions, LONG, title="animals, fake: extra part", boxes=[(0.1, 0.1, 0.4, 0.5)]
        ),
        "cases": cases(
            [case(), case(label=1, words=LONG, reference=""), case(base_words=None, base_verdict=None)]
        ),
        "questions": cases([case(question="Do the eyes of the person look real/fake? " * 4, decides=False)]),
    }


@pytest.fixture(scope="module")
def pictures(artifacts: Path) -> dict[str, Picture]:
    return drawings(artifacts)


NAMES = ["sources", "categories", "categories alone", "confusion", "clue_quality", "agreement", "paradigms"]
NAMES += ["training_curves", "robustness", "per_category", "per_kind", "example", "cases", "questions"]


def shown(picture: Picture) -> list[Text]:
    """The words that are drawn: matplotlib also keeps labels of ticks that lie outside of the axes."""
    hidden: set[int] = set()
    for axes in picture.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            labels = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
            inside = {id(label) for place, label in labels if low - 1e-9 <= place <= high + 1e-9}
            hidden |= {id(text) for text in axis.findobj(Text)} - inside - {id(axis.label)}
            if not axes.axison:
                hidden |= inside | {id(axis.label)}
    return [
        t for t in picture.findobj(Text) if id(t) not in hidden and t.get_visible() and t.get_text().strip()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_words_over_one_another_or_off_the_page(pictures: dict[str, Picture], name: str) -> None:
    picture = pictures[name]
    page = picture.bbox
    boxes = []
    for text in shown(picture):
        box = text.get_window_extent()
        assert min(box.x0 - page.x0, page.x1 - box.x1, box.y0 - page.y0, page.y1 - box.y1) >= -1, text
        boxes.append((text.get_text(), box))
    assert boxes
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        # Line boxes hold room for accents and tails: neighbours may share up to a third of a small line.
        assert wide <= 1 or high <= 3, f"{a!r} lies over {b!r}"


def test_saved_figures_are_small_and_carry_no_date_or_version(
    pictures: dict[str, Picture], tmp_path: Path
) -> None:
    for name in ("paradigms", "cases"):
        style.save(pictures[name], tmp_path, name)
        png, svg = (tmp_path / f"{name}.png").read_bytes(), (tmp_path / f"{name}.svg").read_text()
        assert len(png) <= style.MAX_PNG
        image = Image.open(io.BytesIO(png))
        assert image.width == round(pictures[name].get_figwidth() * image.info["dpi"][0])
        assert set(image.info) <= {"dpi", "transparency"}
        assert "<dc:date>" not in svg
        assert matplotlib.__version__ not in svg
        assert "<text" not in svg  # outlines: the same look without the fonts


def test_drawing_again_gives_the_same_bytes(artifacts: Path, pictures: dict[str, Picture]) -> None:
    again = drawings(artifacts)
    assert set(again) == set(NAMES)
    for name in ("sources", "paradigms", "robustness", "cases", "example"):
        assert again[name].svg == pictures[name].svg
        assert again[name].png(100) == pictures[name].png(100)


def test_a_photograph_that_would_be_too_large_gets_fewer_dots(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8))
    style.save(cases([case(image=noise) for _ in range(6)]), tmp_path, "noise")
    assert (tmp_path / "noise.png").stat().st_size <= style.MAX_PNG
    assert Image.open(tmp_path / "noise.png").info["dpi"][0] < 299


def test_drawing_leaves_the_readers_own_settings_alone(artifacts: Path) -> None:
    with matplotlib.rc_context({"font.size": 31.0, "axes.grid": False}):
        first = dataset_figures.confusion(pd.read_csv(artifacts / "categorize/confusion.csv"))
        assert matplotlib.rcParams["font.size"] == 31.0
        svg = first.svg
    assert svg == dataset_figures.confusion(pd.read_csv(artifacts / "categorize/confusion.csv")).svg
    assert "matplotlib.pyplot" not in vars(sys.modules["fakevlm.reporting.style"])


def _words(picture: Picture) -> str:
    return " ".join(" ".join(text.get_text() for text in shown(picture)).split())


def test_figures_without_data_say_why() -> None:
    quality = pd.DataFrame(columns=["annotator", "precision", "recall", "f1", "n"])
    pairs = pd.DataFrame(columns=["annotator_a", "annotator_b", "jaccard", "kappa", "n"])
    zeros = pd.DataFrame([("animal", "animal", 0)], columns=["truth", "predicted", "n"])
    scores = madeup.scores("loki", np.random.default_rng(0))
    none = scores[scores.subset == "all"]
    for picture, words in (
        (dataset_figures.clue_quality(quality), "known only in the miniature"),
        (dataset_figures.agreement(pairs), "no two annotators"),
        (dataset_figures.confusion(zeros), "no image's true category"),
        (score_figures.per_kind(scores[~scores.subset.str.startswith("kind=")]), "known only"),
        (score_figures.robustness(none), "no perturbation"),
        (score_figures.per_category(none), "no category"),
        (cases([]), "not evaluated"),
    ):
        assert words in _words(picture)


@pytest.mark.parametrize(
    ("kind", "strengths"), [("jpeg", ["90", "30"]), ("noise", ["4", "16"]), ("blur", ["0.5", "1.5"])]
)
def test_robustness_orders_strengths_from_mild_to_strong(kind: str, strengths: list[str]) -> None:
    subsets = ["none", "jpeg=30", "jpeg=90", "noise=16", "noise=4", "blur=1.5", "blur=0.5"]
    frame = pd.DataFrame([("FakeVLM", s, "acc", 0.9, 0.8, 1.0) for s in subsets])
    frame.columns = ["method", "subset", "metric", "value", "ci_low", "ci_high"]
    titles = score_figures.PERTURBATIONS
    panel = next(a for a in score_figures.robustness(frame).axes if a.get_xlabel() == titles[kind])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["–", *strengths]


def test_bars_have_the_heights_of_the_scores(artifacts: Path) -> None:
    scores = pd.read_csv(artifacts / "study/scores.csv")
    picture = score_figures.paradigms(scores)
    axes = next(a for a in picture.axes if a.get_title(loc="left").startswith("LOKI"))
    wanted = scores[(scores.benchmark == "loki") & (scores.metric == "acc")].set_index("method").value
    drawn = [patch.get_width() for patch in axes.patches[: len(wanted)]]
    assert drawn == pytest.approx([wanted[m] for m in score_figures.PARADIGMS])


def test_answers_without_a_verdict_are_said_so() -> None:
    rows = [
        ("Frozen QA", "loki", "all", m, v, v, v, 9)
        for m, v in (("acc", 0.0), ("auc", 0.5), ("unparsed", 1.0))
    ]
    frame = pd.DataFrame(
        rows, columns=["method", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]
    )
    assert "0.000 (100 % mute)" in _words(score_figures.paradigms(frame))


def test_a_method_that_never_decides_is_named_and_not_drawn() -> None:
    scores = madeup.scores("loki", np.random.default_rng(0))
    zero = (scores.method == "LLaVA (untuned)") & (scores.metric == "acc")
    scores.loc[zero, ["value", "ci_low", "ci_high"]] = 0.0
    picture = score_figures.per_category(scores)
    assert "LLaVA (untuned): 0" in _words(picture)
    assert picture.axes[0].get_ylim()[0] > 0.3


def test_validation_losses_are_drawn_where_measured(artifacts: Path) -> None:
    log = pd.read_csv(artifacts / "finetune/head/log.csv")
    assert "validation" not in _words(score_figures.training_curves({"head": log}))
    log["val_loss"] = np.where(log.step % 50 == 0, 0.4, np.nan)
    picture = score_figures.training_curves({"head": log})
    assert "validation" in _words(picture)
    assert len(picture.axes[0].lines[-1].get_xdata()) == 4


def test_a_category_that_the_classifier_got_wrong_is_said_so() -> None:
    assert case(true_category="object", kinds=()).about() == "animals (in truth objects), fake"
    assert case(true_category="animal", kinds=()).about() == "animals, fake"
    assert case(category=None, kinds=()).about() == "fake"


def test_cases_mark_right_and_wrong() -> None:
    assert mark("fake", "fake")[0] == "✓ says fake"
    assert mark("real", "fake")[0] == "✗ says real"
    assert mark("unparsed", "real")[0] == "✗ no verdict"
    assert mark("fake", "real", decides=False)[0] == "no verdict asked"
    shown = _words(cases([case(), case(label=1)]))
    assert "✓ says fake" in shown
    assert "✗ says fake" in shown
    assert "animals, fake: extra part, halo" in shown
    assert "$5 or $6" in shown
    assert case(verdict="real").correct is False


def test_small_images_are_enlarged_and_large_ones_reduced() -> None:
    assert enlarged(photo()).shape == (330, 330, 3)
    assert enlarged(Image.new("RGB", (1000, 500))).shape == (165, 330, 3)


def test_wrap_keeps_every_word_within_the_width() -> None:
    lines = wrap(LONG, 120, 7)
    assert " ".join(lines).split() == LONG.split()
    assert max(width(line, 7) for line in lines) <= 120
    short = wrap(LONG, 120, 7, lines=3)
    assert len(short) == 3
    assert short[-1].endswith(" …")
    assert width(short[-1], 7) <= 121
    assert wrap("", 100, 7) == []
    assert wrap("a\nb", 100, 7) == ["a", "b"]
    pieces = wrap("x" * 300, 100, 7)
    assert "".join(pieces) == "x" * 300
    assert len(pieces) > 2

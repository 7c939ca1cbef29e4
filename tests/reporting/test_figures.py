"""The report and its figures from made-up data: complete, the same bytes twice, no words over one another."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

import madeup
from fakevlm.config.params import load_params
from fakevlm.reporting import dataset_figures, score_figures, style
from fakevlm.reporting.case_figures import Case, cases, example, mark, wrap
from fakevlm.reporting.published import load_published
from fakevlm.reporting.style import Picture
from fakevlm.reporting.texts import layout
from miniworld.world import shoot
from smallcorpora import put

LONG = "Texture: the surface of the animal is overly smooth and waxy, like plastic without any grain; " * 12
QUESTION = "Do the eyes of the person look real/fake? "
CAPTIONS = {"Qwen2-VL": "A short one.", "InternVL2": LONG, "DeepSeek-VL2": "Fake: $halo$ over it."}
PHOTO = Image.fromarray(shoot("object", np.random.default_rng(0)).pixels)
CASE = Case(
    *("a.jpg", PHOTO, 0, "animal"),
    words="This is a fake image. It costs $5 or $6 and --> <script>more()</script> \x1b[31m.",
    verdict="fake",
    reference="This is a fake image. Geometry: the animal has an extra part.",
    base_words="A round thing.",
    base_verdict="unparsed",
    kinds=("extra_part", "halo"),
    boxes=((0.1, 0.2, 0.5, 0.6),),
)
OTHERS = [replace(CASE, label=1, words=LONG, reference=""), replace(CASE, base_words=None, base_verdict=None)]

DRAWN = {
    "example": example(replace(CASE, reference=LONG), CAPTIONS),
    "cases": cases([CASE, *OTHERS]),
    "questions": cases([replace(CASE, question=QUESTION * 4, decides=False)]),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose report is drawn."""
    root = tmp_path_factory.mktemp("root")
    madeup.make(root)
    put(root / "figures", {"fig9_old.png": b"what an earlier run drew", "README": "mine"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKEVLM_ROOT", str(root))
        _, figures = madeup.report(load_params("mini"))
        DRAWN.update({figure.name: figure.picture for figure in figures})
        yield root


@pytest.mark.slow
def test_the_report_is_complete_and_the_same_twice(root: Path) -> None:
    first = {file.name: file.read_bytes() for file in (root / "figures").iterdir()}
    madeup.report(load_params("mini"))
    assert first == {file.name: file.read_bytes() for file in (root / "figures").iterdir()}
    tables = ["table1_datasets", *(table["file"] for table in layout()["tables"].values())]
    figures = list(layout()["figures"])
    files = {f"{table}.{suffix}" for table in tables for suffix in ("csv", "md")}
    files |= {f"{figure}.{suffix}" for figure in figures for suffix in ("png", "svg")}
    assert set(first) == files | {"report.html", "metrics.json", "README"}
    assert max(len(file) for name, file in first.items() if name.endswith(".png")) <= style.MAX_PNG
    # The page stands alone, shows everything, and says what is whose.
    text = first["report.html"].decode("utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert [s for s in sources if not s.startswith(("data:image/", "#")) and "/" in s] == []
    assert [name for name in (*tables, *figures) if f'id="{name}"' not in text] == []
    text = re.sub(r"data:image/[^\"]*", "", text)
    assert "http" not in text.replace("http://www.w3.org", "")
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\d\d:\d\d:\d\d", text)
    assert str(root) not in text
    for part in ("this run (mini)", "FakeVLM never names", "1 is new", "&lt;b&gt;round&lt;/b&gt;"):
        assert part in text
    assert "<b>round</b>" not in text  # a model's words are words
    for _, entry in load_published().contradictions():
        assert entry["note"].split("`")[0].replace("'", "&#39;")[:60] in text


def shown(picture: Picture) -> list[Text]:
    """The words that are drawn: matplotlib also keeps labels of ticks that lie outside of the axes."""
    hidden: set[Text] = set()
    for axis in (axis for axes in picture.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        labels = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
        inside = {label for place, label in labels if low - 1e-9 <= place <= high + 1e-9} | {axis.label}
        hidden |= set(axis.findobj(Text)) - (inside if axis.axes.axison else set())
    texts = [text for text in picture.findobj(Text) if text not in hidden and text.get_visible()]
    return [text for text in texts if text.get_text().strip()]


def words(picture: Picture) -> str:
    return " ".join(" ".join(text.get_text() for text in shown(picture)).split())


@pytest.mark.parametrize(
    "name", [*DRAWN, *(n for n, spec in layout()["figures"].items() if "cases" not in spec)]
)
def test_no_words_over_one_another_or_off_the_page(name: str, root: Path) -> None:
    picture = DRAWN[name]
    picture.draw_without_rendering()  # once saved, texts lie where the file had them
    page = picture.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown(picture)]
    assert boxes
    for text, box in boxes:
        assert min(box.x0 - page.x0, page.x1 - box.x1, box.y0 - page.y0, page.y1 - box.y1) >= -1, text
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        # Line boxes hold room for accents and tails: neighbours may share up to a third of a small line.
        assert wide <= 1 or high <= 3, f"{a!r} lies over {b!r}"


def test_files_carry_no_fonts_dates_or_versions(tmp_path: Path) -> None:
    style.save(DRAWN["cases"], tmp_path, "first")
    image = Image.open(tmp_path / "first.png")
    assert image.width == round(DRAWN["cases"].get_figwidth() * image.info["dpi"][0])
    assert set(image.info) <= {"dpi", "transparency"}
    svg = (tmp_path / "first.svg").read_text()
    assert "<text" not in svg  # outlines: they look the same without the fonts
    kinds = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert not kinds & {"script", "foreignObject", "a"}, "a model's words are words"
    assert not any(mark in svg for mark in ("<dc:date>", matplotlib.__version__))


def test_figures_without_data_say_why() -> None:
    scores = madeup.scores("loki", np.random.default_rng(0))
    none = scores[scores.subset == "all"]
    zeros = pd.DataFrame([("animal", "animal", 0)], columns=["true", "predicted", "n"])
    nobody = pd.DataFrame(columns=["annotator", "precision", "recall", "f1"])
    for picture, reason in (
        (dataset_figures.clue_quality(nobody), "known only in the miniature"),
        (dataset_figures.agreement(nobody), "no two annotators"),
        (dataset_figures.confusion(zeros), "no image's true category"),
        (score_figures.per_kind(none), "known only"),
        (score_figures.robustness(none), "no perturbation"),
        (score_figures.per_category(none), "no category"),
        (cases([]), "not evaluated"),
    ):
        assert reason in words(picture)


def test_bars_have_the_heights_of_the_scores_and_name_silence(root: Path) -> None:
    scores = pd.read_csv(root / "artifacts/study/scores.csv")
    scores = pd.concat([scores, scores[scores.metric == "acc"].assign(metric="unparsed", value=0.3)])
    picture = score_figures.paradigms(scores)
    axes = next(a for a in picture.axes if a.get_title(loc="left").startswith("LOKI"))
    accuracy = scores[(scores.benchmark == "loki") & (scores.metric == "acc")].set_index("method").value
    drawn = [patch.get_width() for patch in axes.patches[: len(accuracy)]]
    assert drawn == pytest.approx([accuracy[m] for m in score_figures.PARADIGMS])
    assert "(30 % mute)" in words(picture)


def test_a_method_that_never_decides_is_named_and_not_drawn() -> None:
    scores = madeup.scores("loki", np.random.default_rng(0))
    zero = (scores.method == "LLaVA (untuned)") & (scores.metric == "acc")
    scores.loc[zero, ["value", "ci_low", "ci_high"]] = 0.0
    picture = score_figures.per_category(scores)
    assert "LLaVA (untuned): 0" in words(picture)
    assert picture.axes[0].get_ylim()[0] > 0.3


def test_cases_say_what_an_image_is_and_which_verdicts_are_right() -> None:
    assert replace(CASE, true_category="object", kinds=()).about() == "animals (in truth objects), fake"
    assert replace(CASE, category=None, kinds=()).about() == "fake"
    assert mark("unparsed", "fake")[0] == "✗ no verdict"
    assert wrap("as if a wet finger had smeared", 75, 6.3, lines=1) == ["as if a wet finger …"]
    text = words(cases([CASE, replace(CASE, label=1)]))
    for part in ("✓ says fake", "✗ says fake", "animals, fake: extra part, halo", "$5 or $6"):
        assert part in text

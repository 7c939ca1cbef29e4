"""Corpora, annotators, detectors, renderers from outside the package: the code of docs/extending.md."""

import asyncio
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import tinyllava
from conftest import ROOT
from fakevlm.annotation.annotate import make_annotators
from fakevlm.collection.collect import collect
from fakevlm.config.params import PublishedExpert, load_params
from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.page_layout import Block
from fakevlm.data.records import FAKE, read_frame
from fakevlm.errors import UserError
from fakevlm.evaluation import detectors
from fakevlm.evaluation.benchmarks import folder
from fakevlm.inference.ask import Request
from fakevlm.plugins import ANNOTATORS, RENDERERS, load
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from smallcorpora import settings

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's Python blocks as modules that can be imported."""
    place = tmp_path / "mine"
    place.mkdir()
    for block in blocks("python"):
        file = place / block.splitlines()[0].removeprefix("# ")
        file.write_text(block)
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    monkeypatch.syspath_prepend(place)
    return place


def entry(key: str) -> dict:
    """The first entry of a list in the page's YAML, by its key."""
    for block in blocks("yaml"):
        section = yaml.safe_load(block)
        while isinstance(section, dict):
            if key in section:
                return section[key][0]
            (section,) = section.values()
    raise KeyError(key)


def test_a_corpus_and_a_benchmark(project: Path, modules: Path, tmp_path: Path) -> None:
    for n, label in enumerate(["fake", "real"]):
        (tmp_path / "corpus" / label).mkdir(parents=True)
        Image.new("L", (40, 40), 60 * n).save(tmp_path / "corpus" / label / f"{n}.png")
    other = entry("others") | {"path": str(tmp_path / "corpus")}
    params = settings()
    chosen = params.collect.model_dump()
    chosen["corpora"]["others"] = [other]
    chosen["benchmarks"]["others"] = [other | {"name": "test"}]
    collected = collect(params.model_copy(update={"collect": type(params.collect)(**chosen)}))
    assert collected.sources.values.tolist() == [["mine", 0, "", 1], ["mine", 1, "", 1]]
    assert collected.benchmarks == {"test": 2}
    assert sorted(read_frame(folder("test"))["id"]) == ["mine/fake/0.png", "mine/real/1.png"]


def test_an_annotator(modules: Path) -> None:
    params = load_params("mini")
    chosen = params.annotate.model_dump() | {"annotators": [entry("annotators")], "min_annotators": 1}
    (annotator,) = make_annotators(type(params.annotate)(**chosen).annotators, {}, 1)
    request = Request("x", "x", None, None, annotator.model, annotator.revision)
    assert asyncio.run(annotator.annotate(request)).text == "The light comes from two sides."


def test_a_detector(project: Path, modules: Path) -> None:
    records = tinyllava.records(6)
    answers = detectors.published(PublishedExpert(**entry("experts")), load_params("mini"))(records, None)
    brightness = [np.asarray(record.pil()).mean() / 255 for record in records]
    assert answers["p_fake"] == pytest.approx(brightness, abs=1e-4)


class Strange:
    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        return tinyllava.records(1)[0].image, GroundTruth(path, FAKE, "doc")


def test_a_renderer() -> None:
    reference = f"{__name__}:Strange"
    page = Page(Path("a.jpg"), 30, 40, "paper", (Block("text", (0.1, 0.1, 0.9, 0.9)),))
    ((record, ground_truth),) = synthesize_documents([page], 1, 17, reference)
    assert record.image == tinyllava.records(1)[0].image
    assert (record.id, ground_truth.label) == (ground_truth.path, FAKE)
    with pytest.raises(UserError, match="draws documents only"):
        list(synthesize_satellites(1, 17, reference))


@pytest.mark.parametrize("name", ["crayons", "no_such_module:Renderer", "fakevlm.plugins:nothing"])
def test_what_cannot_be_loaded_is_named_with_the_setting(name: str) -> None:
    with pytest.raises(UserError, match=r"collect\.renderer") as error:
        load(name, RENDERERS, "collect.renderer")
    assert "fonts, miniature" in error.value.cure
    built_in = RENDERERS | ANNOTATORS
    assert all(callable(load(name, built_in, "setting")) for name in built_in)

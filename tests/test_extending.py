"""docs/extending.md, done from outside the package: its own code blocks, in a folder of a user's."""

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
from fakevlm.annotation.annotators import make_annotators
from fakevlm.collection.collect import collect
from fakevlm.config.params import PublishedExpert, load_params
from fakevlm.data.records import read_frame
from fakevlm.evaluation import detectors
from fakevlm.evaluation.benchmarks import folder
from fakevlm.inference.ask import Request
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
        file = tmp_path / "corpus" / label / f"{n}.png"
        file.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 40, 3), 60 * n, np.uint8)).save(file)
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
    spec = PublishedExpert(**entry("experts"))
    records = tinyllava.records(6)
    answers = detectors.published(spec, load_params("mini"))(records, None)
    brightness = [np.asarray(record.pil()).mean() / 255 for record in records]
    assert answers["p_fake"] == pytest.approx(brightness, abs=1e-4)
    assert answers["verdict"].tolist() == ["fake" if value >= 0.5 else "real" for value in brightness]

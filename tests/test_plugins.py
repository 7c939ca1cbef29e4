"""Renderers and annotators from outside the package: named in params.yaml as module:object."""

import io
from pathlib import Path

import pytest
from PIL import Image

from editedparams import edited
from fakevlm.config.params import load_params
from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.page_layout import Block
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.plugins import ANNOTATORS, RENDERERS, load
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites

STRANGER = """
import io
from PIL import Image
from fakevlm.data.ground_truth import GroundTruth

class Renderer:
    def document(self, page, rng, path):
        out = io.BytesIO()
        Image.new("RGB", (page.width, page.height), (int(rng.integers(256)), 0, 0)).save(out, "JPEG")
        return out.getvalue(), GroundTruth(path, 0, "doc")
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "stranger_plugins.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    return "stranger_plugins"


def test_a_renderer(stranger: str, tmp_path: Path) -> None:
    file = edited(tmp_path, "paper.collect.renderer", f"{stranger}:Renderer")
    renderer = load_params("paper", file).collect.renderer
    page = Page(Path("a.jpg"), 30, 40, "paper", (Block("text", (0.1, 0.1, 0.9, 0.9)),))
    ((record, truth),) = synthesize_documents([page], 1, 17, renderer)
    assert Image.open(io.BytesIO(record.image)).size == (30, 40)
    assert (record.id, truth.label) == (truth.path, FAKE)
    with pytest.raises(UserError, match="draws documents only"):
        list(synthesize_satellites(1, 17, renderer))


@pytest.mark.parametrize("name", [*RENDERERS, *ANNOTATORS])
def test_registered_names_load(name: str) -> None:
    assert callable(load(name, RENDERERS | ANNOTATORS, "setting"))


@pytest.mark.parametrize("name", ["crayons", "no_such_module:Renderer", "fakevlm.plugins:nothing"])
def test_what_cannot_be_loaded_is_named_with_the_setting(name: str) -> None:
    with pytest.raises(UserError, match=r"collect\.renderer") as error:
        load(name, RENDERERS, "collect.renderer")
    assert "fonts, miniature" in error.value.cure

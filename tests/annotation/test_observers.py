"""The scripted observers: their hit rates, independence and styles; and the interface to them."""

import asyncio

import numpy as np
import pytest

from fakevlm.annotation.annotate import make_annotators
from fakevlm.config.params import load_params
from fakevlm.data.clues import kinds_named
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError
from fakevlm.inference.ask import Annotator, Outcome, Request
from miniworld.observers import OBSERVERS, describe, plausible_kinds, sources_digest
from served import PROMPT


def fake(*kinds: str) -> GroundTruth:
    return GroundTruth("x", FAKE, "animal", [Artifact(kind, (0.1, 0.1, 0.5, 0.5), 0.8) for kind in kinds])


def texts(name: str, ground_truth: GroundTruth, n: int, tagged: bool = False, seed: int = 1) -> list[str]:
    return [describe(name, ground_truth, str(i), seed=seed, tagged=tagged) or "" for i in range(n)]


@pytest.mark.parametrize("name", list(OBSERVERS))
def test_each_sees_most_misses_some_and_invents_some(name: str) -> None:
    kinds = {"smooth", "melt", "halo"}
    named = [kinds_named(text) for text in texts(name, fake(*kinds), 600)]
    assert 0.65 < np.mean([len(names & kinds) / 3 for names in named]) < 0.85
    assert 0.15 < np.mean([len(names - kinds) for names in named]) < 0.45
    assert set().union(*named) <= set(plausible_kinds("animal")), "invents only what could be there"
    nothing = GroundTruth("x", FAKE, "scene")
    pressed = np.mean([len(kinds_named(t)) for t in texts(name, nothing, 400)])
    excused = np.mean([len(kinds_named(t)) for t in texts(name, nothing, 400, tagged=True)])
    assert excused < 0.45 * pressed, "insisting on artifacts makes them up"
    assert sum("no visible artifact" in t.lower() for t in texts(name, nothing, 100, tagged=True)) > 60
    page = GroundTruth("x", REAL, "doc", [], ["grain", "lines", "light", "structure"])
    assert np.mean([bool(kinds_named(t)) for t in texts(name, page, 400)]) < 0.2


def test_captions_depend_on_image_observer_seed_and_tag_alone() -> None:
    image, name = fake("smooth", "melt", "halo"), "Qwen2-VL (scripted)"
    assert texts(name, image, 20) == texts(name, image, 20) != texts(name, image, 20, seed=4)
    assert sources_digest({"a": image}) != sources_digest({"a": fake("melt")})
    with pytest.raises(UserError, match="InternVL2"):
        describe("GPT-4o", image, "0", seed=3, tagged=False)


def test_annotators_by_back_end() -> None:
    params = load_params("mini")
    annotators = make_annotators(params.annotate.annotators, {"a": fake("smooth")}, params.seed)
    assert [each.model for each in annotators] == list(OBSERVERS)

    def status(annotator: Annotator, path: str) -> str:
        return asyncio.run(annotator.annotate(Request("id", path, b"image", PROMPT).to(annotator))).status

    assert [status(each, "a") for each in annotators] == ["ok"] * 3
    assert status(annotators[0], "unknown.jpg") == "error"
    with pytest.raises(UserError, match="ground truth"):
        make_annotators(params.annotate.annotators[:1], {}, 1)


def test_what_the_aggregation_reads_of_an_answer() -> None:
    read = {("ok", "A text. Or"): "A text. Or", ("refused", "A text."): "", ("error", "reset"): ""}
    read[("truncated", "- waxy fur (3.5 px)\n- a bent le")] = "- waxy fur (3.5 px)\n"
    read[("truncated", "It is **odd.** The e.g")] = "It is **odd.**"
    read[("truncated", "The fur is wa")] = ""
    assert {answer: Outcome(*answer).caption for answer in read} == read
    assert not Outcome("ok", "  ").caption

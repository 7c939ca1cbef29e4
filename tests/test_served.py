"""FakeVLM behind servers: a server process with the tiny model says what this process says."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tinyllava
from fakevlm.config.params import Params, Servers
from fakevlm.errors import UserError
from fakevlm.inference import engines, prediction, served
from fakevlm.model.llava import load_model, load_processor
from llavaserver import serving
from misbehaving import image
from misbehaving import serving as misbehaving
from served import free_port

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_servers")]  # each server loads torch

QUESTIONS = (None, "Does the person's skin look real/fake?", "Is this image fake?")
ANSWERS = [
    "This is a fake image. Texture: waxy.",
    "This is a real image.",
    "This image is not real.",
    "A dog on a sofa.",
    "Yes.",
    "",
]
LONGEST = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tinyllava.build(tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="module")
def records() -> list:
    return tinyllava.records(20, questions=QUESTIONS)


@pytest.fixture(scope="module")
def alone(folder: Path, records: list) -> pd.DataFrame:
    """What one process says, the answers' words scripted (random weights give no verdicts), its logits its own."""
    model, processor = load_model(folder, device="cpu"), load_processor(folder)
    model.generate = tinyllava.scripted(model, processor, ANSWERS)
    return prediction.predict(model, processor, records, batch_size=4, max_new_tokens=LONGEST)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with serving(folder, ANSWERS) as address:
        yield address


def _params(folder: Path, *urls: str, **changes) -> Params:
    servers = {"urls": list(urls), "model": "tiny", "concurrency": 3, "timeout": 120.0, "top_logprobs": 20}
    servers = Servers(**{**servers, **changes})
    return tinyllava.params(folder, evaluate={"batch_size": 4, "servers": servers})


def _ask(params: Params, folder: Path, desc: str = "t") -> engines.Speaker:
    return served.speaker(params, folder, desc)


def _same(served: pd.DataFrame, alone: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(served.drop(columns="p_fake"), alone.drop(columns="p_fake"))
    assert np.abs(served["p_fake"] - alone["p_fake"]).max() <= 1e-5


def test_the_scripted_answers_are_of_every_kind(alone: pd.DataFrame) -> None:
    assert set(alone["verdict"]) == {"fake", "real", "unparsed"}
    assert set(alone["forced"]) == {True, False}
    assert alone["p_fake"].nunique() > 10


def test_two_replicas_that_give_the_tokens_asked_for(server, folder, records, alone, tmp_path) -> None:
    urls = [f"{server}/vllm/{n}/v1" for n in range(2)]
    _same(_ask(_params(folder, *urls), folder, "FakeVLM")(records, LONGEST, tmp_path), alone)
    parts = sorted(tmp_path.glob("part-*.parquet"))
    assert len(parts) == 5
    nobody = _params(folder, f"http://127.0.0.1:{free_port()}/v1", retries=0)
    ask = _ask(nobody, folder, "FakeVLM")
    _same(ask(records, LONGEST, tmp_path), alone)  # all of it from the journal
    parts[0].unlink()
    with pytest.raises(UserError, match="no server can be reached at"):
        ask(records, LONGEST, tmp_path)


@pytest.mark.parametrize("style", ["old", "sglang"])
def test_servers_that_give_the_likeliest_tokens(server, folder, records, alone, style, capsys) -> None:
    everything = len(load_processor(folder).tokenizer)
    params = _params(folder, f"{server}/{style}/v1", top_logprobs=everything)
    _same(_ask(params, folder, "t")(records, LONGEST, None), alone)
    assert "likeliest" not in capsys.readouterr().err
    params = _params(folder, f"{server}/{style}/v1", top_logprobs=2)
    few = _ask(params, folder, "t")(records, LONGEST, None)
    assert "P(fake) is a bound" in capsys.readouterr().err
    pd.testing.assert_frame_equal(few[["id", "text", "verdict"]], alone[["id", "text", "verdict"]])
    assert (few["forced"] >= alone["forced"]).all(), "a place without either word is no place"


def test_a_server_that_names_no_tokens_is_refused(server, folder, records) -> None:
    ask = _ask(_params(folder, f"{server}/bare/v1"), folder, "t")
    with pytest.raises(UserError, match="serve it with vLLM or SGLang"):
        ask(records, LONGEST, None)


def test_a_server_with_another_chat_template_is_refused(server, folder, records) -> None:
    ask = _ask(_params(folder, f"{server}/other/v1"), folder, "t")
    with pytest.raises(UserError, match=r"HUMAN.*trained on.*USER"):
        ask(records, LONGEST, None)


def test_limits_of_a_server_are_named_with_their_flags(server, folder, records) -> None:
    ask = _ask(_params(folder, f"{server}/limited/v1"), folder, "t")
    with pytest.raises(
        UserError, match=r"greater than max allowed[\s\S]*--max-logprobs[\s\S]*--max-model-len"
    ):
        ask(records, LONGEST, None)


def test_what_a_server_will_not_take_is_told_with_the_record(folder, tmp_path) -> None:
    record = tinyllava.records(1)[0]
    told = {
        "400": "the image is too small",
        "404": "evaluate.servers.model or urls",
        "500": "its log tells why",
    }
    for behaviour, said in told.items():
        record.image = image(behaviour)
        with misbehaving(None) as url, pytest.raises(UserError, match=said):
            _ask(_params(folder, url), folder, "FakeVLM")([record], LONGEST, None)

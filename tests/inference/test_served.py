"""FakeVLM behind servers: a server with the tiny model says what this process says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tinyllava
from clusters import ports
from fakevlm.cache import Cache
from fakevlm.config.params import Servers
from fakevlm.errors import UserError
from fakevlm.inference import generate
from fakevlm.inference.predict import Predictor, predict
from fakevlm.inference.served import Served
from fakevlm.model.llava import load_model, load_processor
from llavaserver import serving
from misbehaving import image

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_servers")]

RECORDS = tinyllava.records(12, questions=tinyllava.QUESTIONS)
LONGEST = 24


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tinyllava.taught(tmp_path_factory.mktemp("taught"), RECORDS, tinyllava.TAUGHT)


@pytest.fixture(scope="module")
def alone(base: Path) -> pd.DataFrame:
    """The answers of one process."""
    llava = generate.Llava(load_model(base, device="cpu"), load_processor(base), LONGEST)
    frame = tinyllava.frame(RECORDS, predict(Predictor(lambda: llava, None, 4), RECORDS))
    assert set(frame["verdict"]) == {"fake", "real", "unparsed"}
    assert set(frame["forced"]) == {True, False}
    assert frame["p_fake"].nunique() > 10
    return frame


@pytest.fixture(scope="module")
def server(base: Path) -> Iterator[str]:
    with serving(base) as address:
        yield address


def _ask(base: Path, *urls: str, records=RECORDS, store: Cache | None = None, **changes) -> pd.DataFrame:
    servers = {"urls": list(urls), "model": "tiny", "concurrency": 3, "timeout": 120.0, "top_logprobs": 20}
    served = Served(Servers(**{**servers, **changes}), "FakeVLM", base, LONGEST)
    return tinyllava.frame(records, served.predict(records, store or Cache(None)))


def _same(served: pd.DataFrame, alone: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(served.drop(columns="p_fake"), alone.drop(columns="p_fake"))
    assert np.abs(served["p_fake"] - alone["p_fake"]).max() <= 1e-5


def test_two_replicas_that_give_the_tokens_asked_for(server, base, alone, tmp_path) -> None:
    urls, file = [f"{server}/vllm/{n}/v1" for n in range(2)], tmp_path / "answers.sqlite"
    _same(_ask(base, *urls, store=Cache(file)), alone)
    away = {"retries": 0, "store": Cache(file)}
    address = f"http://127.0.0.1:{ports(1)[0]}/v1"
    _same(_ask(base, address, **away), alone)  # all of it from the cache
    with pytest.raises(UserError, match="no server can be reached at"):
        _ask(base, address, records=tinyllava.records(1, seed=9), **away)


@pytest.mark.parametrize("style", ["old", "sglang"])
def test_servers_that_give_the_likeliest_tokens(server, base, alone, style, capsys) -> None:
    everything = len(load_processor(base).tokenizer)
    _same(_ask(base, f"{server}/{style}/v1", top_logprobs=everything), alone)
    assert "likeliest" not in capsys.readouterr().err
    few = _ask(base, f"{server}/{style}/v1", top_logprobs=2)
    assert "P(fake) is a bound" in capsys.readouterr().err
    pd.testing.assert_frame_equal(few[["id", "text", "verdict"]], alone[["id", "text", "verdict"]])
    assert (few["forced"] >= alone["forced"]).all(), "a place without either word is no place"


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("bare", "serve it with vLLM or SGLang"), ("other", r"HUMAN.*trained on.*USER"),
        ("limited", r"greater than max allowed[\s\S]*--max-logprobs[\s\S]*--max-model-len"),
    ],
)  # fmt: skip
def test_what_a_server_lacks_is_named(server, base, style: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ask(base, f"{server}/{style}/v1")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("400", "the image is too small"), ("404", r"servers\.model or urls"), ("500", "its log tells why")],
)
def test_what_a_server_will_not_take_is_told(base, url, behaviour: str, message: str) -> None:
    record = replace(tinyllava.records(1)[0], image=image(behaviour))
    with pytest.raises(UserError, match=message):
        _ask(base, url, records=[record])

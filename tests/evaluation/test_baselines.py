"""Language models behind servers as baselines, against a server process that misbehaves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import changed
from fakevlm import cache
from fakevlm.cache import Cache
from fakevlm.config.params import Baseline, Params, PublishedExpert, Servers, load_params
from fakevlm.data.corpora.ffpp import METHODS
from fakevlm.data.records import Record, write_records
from fakevlm.errors import UserError
from fakevlm.evaluation import baselines, benchmarks, detectors
from fakevlm.inference.ask import Request, Text, ask_all
from fakevlm.inference.servers import Client
from fakevlm.model import verdict
from fakevlm.reporting.inputs import average_auc
from misbehaving import image, requests
from served import baseline_entry

pytestmark = pytest.mark.usefixtures("quick_servers")

# What the server does → outcome, verdict, forced verdict, text.
EXPECTED = {
    "fake": ("ok", "fake", "fake", "This is a fake image. The fur is waxy."),
    "real": ("ok", "real", "real", "This is a real image. The fur looks natural."),
    "cutfake": ("truncated", "fake", "fake", "This is a fake image. The fur is wa"),
    "length*1,fake": ("truncated", "unparsed", "fake", "The fur is wa"),
    "empty*1,500*1,real": ("empty", "unparsed", "real", ""),
    "refusal": ("refused", "unparsed", "unparsed", "I will not judge people."),
    "400": ("rejected", "unparsed", "unparsed", None),
    "500*1,429*1,fake": ("ok", "fake", "fake", "This is a fake image. The fur is waxy."),
}
NOSE = "Does the person's nose look fake?"


def records(behaviours: list[str], question: str | None = None) -> list[Record]:
    return [
        Record(f"{n}.jpg", image(b, name=str(n)), n % 2, "genimage", f"{n}", "animal", question=question)
        for n, b in enumerate(behaviours)
    ]


def answers(file: Path, spec: Baseline, wanted: list[Record]) -> pd.DataFrame:
    with Cache(file) as store:
        return baselines.answers(spec, 17, wanted, store)


def test_every_image_has_one_outcome_and_the_verdict_that_its_text_claims(url, log, tmp_path: Path) -> None:
    wanted = records(list(EXPECTED))
    frame = answers(tmp_path / "answers", baseline_entry(url), wanted)
    assert frame["id"].tolist() == [record.id for record in wanted]
    rows = frame[["outcome", "verdict", "verdict_forced", "text"]].astype(object).replace({np.nan: None})
    assert [tuple(row) for row in rows.itertuples(index=False)] == list(EXPECTED.values())
    assert frame["p_fake"].isna().all()
    forced = [r for r in requests(log) if "response_format" in r["asked"]]
    assert len({request["image"] for request in forced}) == 3, "only where there is no verdict"
    assert {request["prompt"][0] for request in forced} == {baselines.STANDARD_PROMPT + baselines.CHOICE}
    before = len(requests(log))
    again = answers(tmp_path / "answers", baseline_entry(url), wanted)
    assert len(requests(log)) == before, "what was answered, however, is not asked again"
    pd.testing.assert_frame_equal(again, frame)


def test_a_server_that_knows_no_response_format_gives_no_forced_choice(url, log, tmp_path: Path) -> None:
    frame = answers(tmp_path / "answers", baseline_entry(url), records(["fake", "no*1,400", "no*1,400"]))
    assert len(requests(log)) <= 5, "one request tells it, those under way aside"
    assert frame["verdict"].tolist() == ["fake", "unparsed", "unparsed"]
    assert frame["verdict_forced"].replace({np.nan: None}).tolist() == ["fake", None, None]


def test_own_questions_are_passed_through_and_prompts_can_be_replaced(url, log, tmp_path: Path) -> None:
    wanted = records(["no"])
    wanted += [Record(f"0.jpg#{n}", wanted[0].image, 0, "ddvqa", "0", question=NOSE) for n in (1, 2)]
    frame = answers(tmp_path / "answers", baseline_entry(url), wanted)
    answers(tmp_path / "answers", baseline_entry(url, prompt="Real or fake?"), records(["no"]))
    asked = [row["prompt"] for row in requests(log) if "response_format" not in row["asked"]]
    assert sorted(asked[:2]) == sorted([[baselines.STANDARD_PROMPT], [NOSE]]), "equal requests are one"
    assert asked[2:] == [["Real or fake?"]]
    assert frame["verdict"].tolist() == ["unparsed", "real", "real"], "No answers a question about fake alone"


def test_the_standard_prompt_asks_for_sentences_that_the_parser_reads() -> None:
    text = baselines.STANDARD_PROMPT
    assert [verdict.parse(sentence, text) for sentence in text.split('"')[1::2]] == ["real", "fake"]
    assert verdict.parse("Yes.", text) == verdict.parse("No.", text) == "unparsed"


def test_failed_requests_are_no_answers_and_alone_are_asked_again(url, log, tmp_path: Path) -> None:
    wanted = records(["fake", "500*4,real", "real", "cut*4,fake"])
    with pytest.raises(UserError, match="Qwen2-VL-7B: 2 of 4 requests failed"):
        answers(tmp_path / "answers", baseline_entry(url), wanted)
    before = len(requests(log))
    frame = answers(tmp_path / "answers", baseline_entry(url), wanted)
    assert len(requests(log)) == before + 2
    assert frame["verdict"].tolist() == ["fake", "real", "real", "fake"]


def ffpp() -> list[Record]:
    """Frames of manipulations and of originals; the server calls all but one by their names."""
    frames = []
    for n, method in enumerate([None, *METHODS] * 2):
        behaviour = "empty*1,fake" if n == 7 else "fake" if method else "real"
        data = image(behaviour, name=f"frame{n}")
        frames.append(Record(f"ff++/{n}.jpg", data, int(method is None), "ff++", f"{n}", "deepfake", method))
    return frames


@pytest.fixture
def params(project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    (project / "artifacts/experts/cnnspot").mkdir(parents=True)
    (project / "artifacts/experts/cnnspot/config.json").write_text("{}")
    write_records(ffpp(), project / "artifacts/collect/benchmarks/ffpp")
    unsure = SimpleNamespace(predict=lambda images: np.full(len(images), 0.25))
    monkeypatch.setattr("fakevlm.evaluation.experts.load_expert", lambda _: unsure)
    return load_params("mini")


def evaluated(params: Params, **changes: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    return benchmarks.evaluate(changed(params, "evaluate", **{"methods": ["CNNSpot"], **changes}), "ffpp")


def test_baselines_and_experts_are_methods_among_others(params, project, url, log, monkeypatch) -> None:
    scores = project / "scores/srm.csv"
    scores.parent.mkdir()
    scores.write_text("id,score\n" + "".join(f"{r.id},{-r.label * 5}\n" for r in ffpp()))
    here = PublishedExpert(name="SRM", scores=str(scores), threshold=-1.0, benchmarks=["ffpp"])
    elsewhere = PublishedExpert(name="LNP", kind="lnp", weights="no", features="no", benchmarks=["dmimage"])
    asked = [baseline_entry(url), baseline_entry(url, name="GPT-4o", benchmarks=["fakeclue"])]
    settings = {"baselines": asked, "experts": [here, elsewhere], "bootstrap": 20}
    frame, scored = evaluated(params, **settings)
    assert len(requests(log)) == 11, "ten questions and a forced choice"
    monkeypatch.setattr("fakevlm.evaluation.experts.load_expert", lambda _: pytest.fail("loaded again"))
    assert evaluated(params, **settings)[0].equals(frame)
    assert len(requests(log)) == 11, "a later run of the stage pays for nothing twice"
    assert frame.columns.tolist() == benchmarks.SCHEMA.names
    assert frame.groupby("method").size().to_dict() == {"CNNSpot": 10, "Qwen2-VL-7B": 10, "SRM": 10}
    values = scored.set_index(["method", "subset", "metric"])["value"]
    shares = [values["Qwen2-VL-7B", "all", metric] for metric in ("acc", "unparsed", "acc_forced")]
    assert shares == [0.9, 0.1, 1.0]
    assert values["SRM", "all", "auc"] == values["SRM", "all", "acc"] == 1.0
    assert values["CNNSpot", "generator=Deepfakes", "auc"] == 0.5
    assert not [key for key in values.index if key[0] == "Qwen2-VL-7B" and key[2] == "auc"]
    assert average_auc(frame, 20, 1)["method"].tolist() == ["CNNSpot", "SRM"], "Table 5 needs P(fake)"


def test_a_dry_run_counts_what_is_left_to_ask_and_asks_nothing(params: Params, url: str, log: Path) -> None:
    from fakevlm.tools.estimate import evaluation

    spec = baseline_entry(url, benchmarks=["ffpp"], price_input=2.0)
    with cache.answers() as store:  # without the forced choice
        prompt = Text(baselines.STANDARD_PROMPT)
        first = [Request(frame.id, frame.path, frame.image, prompt) for frame in ffpp()[:8]]
        ask_all(first, [Client(spec, params.seed)], store)
    before = len(requests(log))
    (row,) = evaluation(changed(params, "evaluate", baselines=[spec]))
    assert len(requests(log)) == before
    assert (row.name, row.answered, row.requests) == ("Qwen2-VL-7B, ffpp", 7, 3), "one is a forced choice"
    assert row.cost == pytest.approx(2e-6 * row.tokens_in)
    assert evaluation(params) == []


def test_a_missing_file_or_key_stops_before_anything_is_asked(params, project, monkeypatch) -> None:
    monkeypatch.delenv("VLM_KEY", raising=False)

    def refuse(*_: Any, desc: str, **__: Any) -> None:
        raise LookupError(f"{desc} is asked")

    monkeypatch.setattr(detectors, "predict", refuse)
    expert = PublishedExpert(name="Gram-Net", kind="gramnet", weights="data/no-such.pth")
    late = baseline_entry("http://127.0.0.1:1/v1", name="GPT-4o", api_key_env="VLM_KEY")
    servers = Servers(urls=["http://127.0.0.1:1/v1"], model="fakevlm", top_logprobs=20, api_key_env="VLM_KEY")
    served = {"methods": ["CNNSpot", "FakeVLM"], "servers": servers, "model": str(project)}
    mistakes = {r"Gram-Net: no file data/no-such\.pth": {"experts": [expert]}}
    mistakes[r"evaluate\.baselines\[\], GPT-4o: .* VLM_KEY is not set"] = {"baselines": [late]}
    mistakes[r"evaluate\.servers, fakevlm: .* VLM_KEY is not set"] = served
    for message, changes in mistakes.items():
        with pytest.raises(UserError, match=message):
            evaluated(params, **changes)
    with pytest.raises(LookupError, match="CNNSpot is asked"):  # neither is for this benchmark and method
        evaluated(params, servers=servers, baselines=[late.model_copy(update={"benchmarks": ["loki"]})])

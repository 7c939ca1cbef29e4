"""Annotators behind servers, against a server process that misbehaves: every image ends with exactly one outcome."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from fakevlm.errors import UserError
from fakevlm.inference.driver import Task, annotate_all
from fakevlm.inference.endpoint import EndpointAnnotator
from fakevlm.inference.journal import Journal, read_answers
from misbehaving import requests, serving
from served import PROMPT, ask, entry, kill_after_lines, tasks

pytestmark = pytest.mark.usefixtures("quick_servers")

EXPECTED = {
    "ok": "ok",
    "empty": "empty",
    "null": "empty",
    "length": "truncated",
    "filter": "refused",
    "refusal": "refused",
    "filtered": "refused",
    "400": "rejected",
    "413": "rejected",
    "429*2": "ok",
    "429after*1": "ok",
    "429": "error",
    "500*3": "ok",
    "500": "error",
    "503*1": "ok",
    "cut*1": "ok",
    "cut": "error",
    "reset*2": "ok",
    "reset": "error",
    "drip*1": "ok",
    "hang*1": "ok",
    "hang": "error",
    "half*1": "ok",
    "half": "error",
    "nochoice*1": "ok",
    "badjson*1": "ok",
    "badjson": "error",
    "html": "error",
    "500*1,429*1,cut*1": "ok",
}
FINAL = [b for b, status in EXPECTED.items() if status not in ("error",) and "*" not in b]


@pytest.mark.slow
def test_every_image_ends_with_exactly_one_outcome_and_a_rerun_asks_only_what_failed(tmp_path: Path) -> None:
    wanted = tasks(list(EXPECTED))
    log, journal = tmp_path / "log", tmp_path / "journal.jsonl"
    with serving(log) as url:
        found = ask(journal, wanted, entry(url, timeout=0.8))
        assert {c.id: c.outcome.status for c in found} == dict(
            zip([task.id for task in wanted], EXPECTED.values(), strict=True)
        )
        assert [c.id for c in found] == [task.id for task in wanted]
        assert {c.annotator for c in found} == {"Qwen2-VL"}
        by = dict(zip(EXPECTED, (c.outcome.text for c in found), strict=True))
        assert by["ok"].endswith("is waxy.")
        assert by["length"] == "The fur is wa"
        assert by["refusal"] == "I will not judge people."
        assert "the image is too small" in by["400"]
        assert by["413"].startswith("status 413")
        assert "out of memory" in by["500"]
        assert "within 0.8 s" in by["hang"]
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        assert sorted(line["id"] for line in lines) == sorted(task.id for task in wanted), "one line an image"

        asked = requests(log)
        per_image = {task.id: sum(r["image"] == _digest(task) for r in asked) for task in wanted}
        for task, behaviour in zip(wanted, EXPECTED, strict=True):
            if EXPECTED[behaviour] == "error":
                assert per_image[task.id] == 4, f"{behaviour}: retries times more than once"
            if behaviour in FINAL:
                assert per_image[task.id] == 1, f"{behaviour}: an answer is not asked again"

        before = len(asked)
        again = ask(journal, wanted, entry(url, timeout=0.8))
        repeated = {r["image"] for r in requests(log)[before:]}
        failed = {_digest(task) for task, c in zip(wanted, found, strict=True) if c.outcome.status == "error"}
        assert repeated == failed
        assert [c.outcome.status for c in again] == list(EXPECTED.values())


def _digest(task: Task) -> str:
    import hashlib

    return hashlib.sha256(task.image).hexdigest()


def test_images_go_as_data_with_the_prompt_the_sampling_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    wanted, log, journal = tasks(["ok"]), tmp_path / "log", tmp_path / "j"
    with serving(log) as url:
        ask(journal, wanted, entry(url, api_key_env="VLM_KEY", seed=3))
        ask(tmp_path / "k", wanted, entry(url))
    with_key, without = requests(log)
    assert with_key["kind"] == "data:image/jpeg;base64"
    assert with_key["image"] == _digest(wanted[0]), "the very bytes"
    assert with_key["prompt"] == [PROMPT.text]
    assert with_key["asked"] == {
        "model": "Qwen/Qwen2-VL-72B-Instruct",
        "max_tokens": 50,
        "temperature": 0.0,
        "seed": 3,
    }
    assert with_key["key"] == "Bearer sk-secret-of-ours"
    assert without["asked"]["seed"] == 17, "the profile's"
    assert without["key"] is None, "a key of another service is nobody's business"
    assert "sk-" not in journal.read_text()


def test_what_is_no_image_is_rejected_without_asking(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as url:
        found = ask(tmp_path / "j", [Task("a", "a", b"torn", PROMPT)], entry(url))
    assert found[0].outcome.status == "rejected"
    assert requests(log) == []


@pytest.mark.parametrize(("status", "cure"), [("401", "VLM_KEY"), ("404", "/models")])
def test_a_users_mistake_stops_the_run_and_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, cure: str
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    with serving(tmp_path / "log") as url:
        with pytest.raises(UserError, match=f"answers {status}") as caught:
            ask(tmp_path / "j", tasks([status] * 100), entry(url, api_key_env="VLM_KEY"), concurrency=4)
        assert cure in str(caught.value)
        assert "secret" not in str(caught.value)
        assert len(requests(tmp_path / "log")) <= 4
    assert (tmp_path / "j").read_text() == ""


def test_when_all_is_rejected_the_run_stops(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        with pytest.raises(UserError, match="too small"):
            ask(tmp_path / "j", tasks(["400"] * 150), entry(url))
        found = ask(tmp_path / "k", tasks(["ok"] + ["400"] * 150), entry(url), concurrency=1)
    assert [c.outcome.status for c in found] == ["ok"] + ["rejected"] * 150, "some images are answered: go on"


def test_a_key_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_KEY", raising=False)
    with pytest.raises(UserError, match="VLM_KEY is not set"):
        ask(tmp_path / "j", tasks(["ok"]), entry("http://127.0.0.1:1/v1", api_key_env="VLM_KEY"))


def test_a_slow_model_does_not_hold_up_the_others(tmp_path: Path) -> None:
    log = tmp_path / "fast"
    with serving(log) as fast, serving(tmp_path / "slow", latency=0.3) as slow:
        entries = (
            entry(slow, name="slow", model="slow", concurrency=2),
            entry(fast, name="fast", model="fast", concurrency=4),
        )
        wanted, ended = tasks(["ok"] * 12), []

        class Watching(EndpointAnnotator):
            async def annotate(self, request):
                outcome = await super().annotate(request)
                ended.append(self.name)
                return outcome

        with Journal(tmp_path / "j") as book:
            found = annotate_all(wanted, [Watching(each, 1) for each in entries], book)
    assert [(c.id, c.annotator) for c in found] == [(t.id, n) for t in wanted for n in ("slow", "fast")]
    assert ended.index("slow") >= 8, "the fast one is nearly through before the slow one's first answer"


def test_progress_tells_rate_cost_and_what_remains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative(*args: Any, **options: Any) -> tqdm:
        return tqdm(*args, **{**options, "mininterval": 0, "delay": 0})

    monkeypatch.setattr("fakevlm.progress.tqdm", talkative)
    spec = {"price_input": 1.0, "price_output": 50.0}
    with serving(tmp_path / "log", latency=0.02) as url:
        ask(tmp_path / "j", tasks(["ok"] * 20 + ["500"]), entry(url, retries=1, **spec), concurrency=1)
    lines = capsys.readouterr().err.splitlines()
    assert re.search(
        r"annotate Qwen2-VL: .* 10/21 \[\d+:\d+<\d+:\d+, .*caption.*, cost 0.02, 300\+40 tokens each",
        "\n".join(lines),
    )
    assert "1 failed, to be asked again by the next run" in lines[-1]


def test_one_model_under_two_names_is_asked_once(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        ask(tmp_path / "j", tasks(["ok"] * 3), entry(url))
        found = ask(tmp_path / "j", tasks(["ok"] * 3), entry(url, name="renamed"))
        assert {c.annotator for c in found} == {"renamed"}
        assert len(requests(tmp_path / "log")) == 3
        ask(tmp_path / "j", tasks(["ok"] * 3), entry(url, revision="other"))
        assert len(requests(tmp_path / "log")) == 6, "another revision is another question"


CLIENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import served as t
t.ask(Path(sys.argv[2]), t.tasks(["ok"] * 60), t.entry(sys.argv[3]), concurrency=4)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_repeats_nothing_that_was_answered(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal.jsonl", tmp_path / "log"
    with serving(log, latency=0.05) as url:
        here = str(Path(__file__).parent)
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, here, journal, url], stderr=subprocess.DEVNULL
        )
        kill_after_lines(client, journal, 15)
        answered, before = read_answers(journal), len(requests(log))
        assert 15 <= len(answered) < 60
        found = ask(journal, tasks(["ok"] * 60), entry(url))
        later = [r["image"] for r in requests(log)[before:]]
    assert [c.outcome.status for c in found] == ["ok"] * 60
    assert len(later) == len(set(later)) == 60 - len(answered), "only what had no answer, once"
    assert len(read_answers(journal)) == 60

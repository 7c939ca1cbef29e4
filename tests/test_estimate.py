"""The dry run: what is left to ask, its tokens, cost and GPU hours; nothing is asked, nothing is written."""

import math
from pathlib import Path

import pytest

from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.driver import Task, annotate_all
from fakevlm.annotation.estimate import dry_run, estimate, main, table
from fakevlm.annotation.journal import Journal, read_answers
from fakevlm.annotation.prompts import label_prompt
from fakevlm.annotation.protocol import Outcome
from fakevlm.params import Endpoint, load_params
from misbehaving import image
from smallworld import Scripted, make_world

PROMPT = label_prompt("animal", 0)
SPEC = Endpoint(
    name="Qwen2-VL",
    backend="endpoint",
    model="m",
    revision="1",
    urls=["http://a/v1", "http://b/v1"],
    api_key_env="NO_SUCH_KEY",
    max_tokens=100,
    temperature=0.0,
    price_input=2.0,
    price_output=10.0,
    gpus=4,
)


def tasks(n: int) -> list[Task]:
    return [Task(f"{i}.jpg", f"{i}.jpg", image(name=str(i)), PROMPT) for i in range(n)]


def test_tokens_cost_and_hours_of_what_is_left() -> None:
    wanted = [*tasks(10), Task("twin.jpg", "twin.jpg", image(name="0"), PROMPT)]
    annotators = make_annotators([SPEC], {}, seed=1)
    (made,) = estimate(wanted, [SPEC], annotators, {}, rate=0.5)
    prompt = math.ceil(len(PROMPT.text) / 4)
    assert (made.requests, made.answered) == (10, 1), "of two equal images one is asked"
    assert made.tokens_in == 10 * (prompt + 4), "32 x 32 pixels are four patches"
    assert made.tokens_out == 1000
    assert made.cost == pytest.approx((made.tokens_in * 2 + 1000 * 10) / 1e6)
    assert made.hours == pytest.approx(10 / 0.5 / 3600 / 2)
    assert made.gpu_hours == pytest.approx(10 / 0.5 / 3600 * 4)
    assert "| Qwen2-VL | 1 | 10 |" in table([made])


def test_what_the_journal_answers_is_not_counted_and_tells_how_long_answers_are(tmp_path: Path) -> None:
    (real,) = make_annotators([SPEC], {}, seed=1)
    answers = {
        "0.jpg": Outcome("ok", "x" * 80),
        "1.jpg": Outcome("refused"),
        "2.jpg": Outcome("error", "reset"),
    }
    scripted = Scripted(real.model, answers, real.revision)
    scripted.sampling = real.sampling
    with Journal(tmp_path / "j") as journal:
        annotate_all(tasks(3), [scripted], journal)
    (made,) = estimate(tasks(10), [SPEC], [real], read_answers(tmp_path / "j"))
    assert (made.answered, made.requests) == (2, 8), "an error is asked again"
    assert made.tokens_out == 8 * 20
    assert made.hours is None


@pytest.mark.slow
def test_a_dry_run_counts_what_the_stage_would_ask_and_leaves_no_trace(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_world(project / "artifacts")
    before = sorted(project.rglob("*"))
    params, served = load_params("mini"), SPEC.model_copy(update={"name": "Qwen2-VL (served)"})
    annotate = params.annotate.model_copy(update={"annotators": [*params.annotate.annotators, served]})
    made = dry_run(params.model_copy(update={"annotate": annotate}))
    assert [e.name for e in made] == [*(a.name for a in load_params("mini").annotate.annotators), served.name]
    assert len({e.requests for e in made}) == 1
    assert made[0].requests > 20
    assert made[0].cost is None
    assert made[3].cost > 0
    assert sorted(project.rglob("*")) == before
    monkeypatch.setattr("sys.argv", ["estimate", "--profile", "mini"])
    assert main() == 0
    assert capsys.readouterr().out.count("\n") == 6
    monkeypatch.setattr("sys.argv", ["estimate", "--profile", "mino"])
    assert main() == 2

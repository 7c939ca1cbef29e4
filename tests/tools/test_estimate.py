"""The dry run: what is left to ask, its tokens, cost and GPU hours; nothing is asked, nothing is written."""

import math
from pathlib import Path

import pytest

from fakevlm.annotation.aggregate import Candidates
from fakevlm.annotation.aggregate_llm import LLMAggregator, question
from fakevlm.annotation.annotate import make_annotators
from fakevlm.cache import Cache
from fakevlm.config.params import Endpoint, load_params
from fakevlm.data.records import FAKE
from fakevlm.inference.ask import Annotator, Outcome, Request, Text, ask_all, name_of
from fakevlm.tools.estimate import Estimate, Tally, annotation, estimate, table
from misbehaving import image
from served import PROMPT, aggregator_entry, entry, images, reply
from smallworld import Scripted, make_world

SPEC = entry(
    "http://a/v1", "http://b/v1", api_key_env="NO_SUCH_KEY", price_input=2.0, price_output=10.0, gpus=4
)
OTHER = entry("http://a/v1", name="InternVL2", model="n", max_tokens=60)


def scripted(annotator: Annotator, answers: dict[str, Outcome]) -> Scripted:
    """One whose requests are the annotator's."""
    stand_in = Scripted(annotator.model, answers)
    stand_in.name, stand_in.revision = name_of(annotator), annotator.revision
    stand_in.sampling = annotator.sampling
    return stand_in


def tallies(store: Cache, *specs: Endpoint) -> list[Tally]:
    return [Tally(*each, store) for each in zip(specs, make_annotators(specs, {}, seed=1), strict=True)]


def test_tokens_cost_and_hours_of_what_is_left() -> None:
    twin = Request("twin.jpg", "twin.jpg", image("", name="0"), PROMPT)
    (row,) = estimate([*images([""] * 10), twin], tallies(Cache(None), SPEC), rate=0.5)
    prompt = math.ceil(len(PROMPT.text) / 4)
    assert (row.requests, row.answered) == (10, 1), "of two equal images one is asked"
    assert row.tokens_in == 10 * (prompt + 4), "32 x 32 pixels are four patches"
    assert row.tokens_out == 10 * SPEC.max_tokens
    assert row.cost == pytest.approx((row.tokens_in * 2 + row.tokens_out * 10) / 1e6)
    assert row.hours == pytest.approx(10 / 0.5 / 3600 / 2)
    assert row.gpu_hours == pytest.approx(10 / 0.5 / 3600 * 4)
    assert "| Qwen2-VL | 1 | 10 |" in table([row])


def test_the_aggregator_is_counted_once_an_image_and_again_where_its_answer_does_not_fit() -> None:
    spec = aggregator_entry("http://a/v1", max_tokens=200, price_input=1.0)
    with Cache(None) as store:

        def aggregator_row() -> Estimate:
            tally = Tally(spec, LLMAggregator(spec, 2, 1, store, {}.get), store)
            return estimate(images([""] * 10), tallies(store, SPEC, OTHER), 1.0, tally)[-1]

        row = aggregator_row()
        assert (row.name, row.requests, row.answered) == ("Qwen2.5 (aggregator)", 10, 0)
        empty = len(question(Candidates("x", "animal", FAKE, {}), 2, with_image=False))
        captions = 10 * (SPEC.max_tokens + OTHER.max_tokens)
        assert row.tokens_in == 10 * math.ceil(empty / 4) + captions, "captions as long as may be"
        assert row.tokens_out == 10 * 200
        assert row.cost == pytest.approx(row.tokens_in / 1e6)

        refused = {"4.jpg": Outcome("refused")}
        annotators = [scripted(tally.annotator, refused) for tally in tallies(store, SPEC, OTHER)]
        questions = []
        columns = ask_all(images([""] * 8), annotators, store)
        for n in range(3):
            captions = {name: each["text"][n] for name, each in columns.items()}
            text = question(Candidates("x", "animal", FAKE, captions), 2, with_image=False)
            questions.append(Request(f"{n}.jpg", "", None, Text(text)))
        ends = [Outcome("ok", reply("fake")), Outcome("ok", "no"), Outcome("refused")]
        replies = {f"{n}.jpg": outcome for n, outcome in enumerate(ends)}
        ask_all(questions, [scripted(LLMAggregator(spec, 2, 1, store, {}.get), replies)], store)
        row = aggregator_row()
    assert (row.answered, row.requests) == (2, 7), "done: 0 and 2; 1 again; 3 and 5 to 9; 4 has no captions"
    assert 10 * math.ceil(empty / 4) > row.tokens_in > 7 * math.ceil(empty / 4)
    assert row.tokens_out == math.ceil(7 * (len(reply("fake")) + len("no")) / 4 / 2)


def test_the_aggregator_starts_when_the_annotators_are_through() -> None:
    rows = [Estimate(str(n), 0, 1, 1, 1, 0.0, n, n, afterwards=n == 2.0) for n in (3.0, 5.0, 2.0)]
    assert table(rows).splitlines()[-1] == "| all | 0 | 3 | 3 | 3 | 0.00 | 7.00 | 10.00 |"


@pytest.mark.slow
def test_a_dry_run_counts_what_the_stage_would_ask_and_leaves_no_trace(project: Path) -> None:
    make_world(project / "artifacts")
    before = sorted(project.rglob("*"))
    params, served = load_params("mini"), SPEC.model_copy(update={"name": "Qwen2-VL (served)"})
    aggregator = aggregator_entry("http://a/v1", with_image=True)
    changes = {"annotators": [*params.annotate.annotators, served], "aggregator": aggregator}
    rows = annotation(params.model_copy(update={"annotate": params.annotate.model_copy(update=changes)}))
    names = [*(a.name for a in params.annotate.annotators), served.name]
    assert [e.name for e in rows] == [*names, "Qwen2.5 (aggregator)"]
    (requests,) = {e.requests for e in rows}
    assert requests > 20
    assert (rows[0].cost, rows[0].hours) == (None, None)
    assert rows[3].cost > 0
    assert sorted(project.rglob("*")) == before
    assert table(rows).count("\n") == 7

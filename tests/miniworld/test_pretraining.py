"""How the miniature's base is made: what it is told, the gate, and that a killed run repeats no phase."""

import json
import re

import numpy as np
import pytest

from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.errors import UserError
from miniworld.pretraining import train
from miniworld.pretraining.describe import LOOKS, ask
from miniworld.pretraining.pool import GRID, render
from miniworld.pretraining.recipe import Recipe, Round
from miniworld.world import SCENES, shoot

VERDICTS = re.compile(
    r"\b(real|fake|authentic\w*|genuine|synthe\w*|generated|manipulated|artificial|unnatural\w*|artifacts?)\b",
    re.I,
)


def test_descriptions_never_speak_of_authenticity() -> None:
    categories = list(SCENES)
    for n in range(280):
        rng = np.random.default_rng([5, n])
        question, answer = ask(shoot(categories[n % 7], rng, fake=n % 2 == 0), rng)
        assert not VERDICTS.search(question + " " + answer), answer
        assert "{" not in answer


def test_no_look_is_mistaken_for_another_kind() -> None:
    assert set(LOOKS) | {"shadow"} == set(KINDS)
    for kind, looks in LOOKS.items():
        for look in looks:
            assert kinds_named(look.format(s="the house")) <= {kind}, look


def test_the_pool_is_the_same_however_many_processes_draw_it() -> None:
    one, two = render(40, 6, 1), render(40, 6, 2)
    assert np.array_equal(one.pixels, two.pixels)
    assert one.texts == two.texts
    assert one.kinds.shape == (6, GRID * GRID)


def test_targets_lie_where_the_artifact_lies() -> None:
    pool = render(0, 60, 2)
    shown = pool.facts[:, 3] > 0
    assert shown.any()
    assert not shown.all()
    assert ((pool.kinds != 0).any(1) == shown).all()


def test_batches_show_every_row_once_before_any_comes_again() -> None:
    rows = np.concatenate(list(train.batches(10, 4, 5, seed=1)))
    assert sorted(rows[:10]) == list(range(10))
    assert sorted(rows[10:]) == list(range(10))


def test_the_gate_refuses_and_is_measured_once(tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(train, "supervised", lambda *_: calls.append(1) or (0.8, 0.9))
    model = type("M", (), {"model": type("I", (), {"vision_tower": None})})
    for _ in range(2):
        with pytest.raises(UserError, match=r"0\.800 of renders; 0\.93 is asked for"):
            train._gate(model, (), tmp_path / "gate.json", "phase 1", 0.93)
    assert len(calls) == 1
    assert train._gate(model, (), tmp_path / "gate.json", "phase 1", 0.75) == (0.8, 0.9)


SMALL = (("hidden_size", 16), ("layers", 1), ("heads", 2), ("mlp", 32))
ROUNDS = (Round(24, dense_steps=2, caption_steps=2), Round(16, dense_steps=2, caption_steps=2))
TINY = Recipe(rounds=ROUNDS, batch=4, head_steps=2, vision=SMALL, text=SMALL, vocab_size=450)


@pytest.mark.slow
def test_a_killed_pretraining_repeats_no_phase_and_ships_what_loads(project, monkeypatch) -> None:
    from fakevlm.model.llava import load_model, load_processor

    monkeypatch.setattr(train, "supervised", lambda *_: (0.95, 0.99))
    real = train.train_captions

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_captions", killed)
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(project / "base", TINY, threads=2)
    before = (project / "runs/base/dense_0.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(train, "train_captions", real)
    train.pretrain(project / "base", TINY, threads=2)
    assert (project / "runs/base/dense_0.safetensors").stat().st_mtime_ns == before
    assert json.loads((project / "runs/base/gate_1.json").read_text())["accuracy"] == 0.95
    model = load_model(project / "base")
    assert load_processor(project / "base").image_token_id == model.config.image_token_id
    card = (project / "base/README.md").read_text()
    assert "0.950 (AUC 0.990) as shipped here" in card
    assert "40 renders" in card
    assert "went on from" not in card


@pytest.mark.slow
def test_the_last_round_goes_on_from_a_finished_base(project, monkeypatch) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setattr(train, "supervised", lambda *_: (0.95, 0.99))
    train.pretrain(project / "first", TINY, threads=2)
    rates = []
    real = train.train_dense

    def watched(model, heads, pool, recipe, steps, rate, norm, *, only_heads=False):
        tower = model.model.vision_tower
        before = [weight.detach().clone() for weight in tower.parameters()]
        real(model, heads, pool, recipe, steps, rate, norm, only_heads=only_heads)
        same = all(map(torch.equal, before, tower.parameters()))
        rates.append((only_heads, same, pool.texts[0]))

    monkeypatch.setattr(train, "train_dense", watched)
    train.pretrain(project / "second", TINY, threads=2, start=project / "first")
    # First the new heads alone, the tower untouched; then both; on renders that the first round did not see.
    assert [row[:2] for row in rates] == [(True, True), (False, False)]
    assert rates[0][2] == render(24, 1, 1).texts[0]
    one, two = (load_file(project / name / "model.safetensors") for name in ("first", "second"))
    assert one.keys() == two.keys()
    assert not all(torch.equal(one[key], two[key]) for key in one)
    assert "went on from" in (project / "second/README.md").read_text()

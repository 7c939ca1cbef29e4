"""How the miniature's base is made: what it is told, the gate, and that a killed run repeats no phase."""

import json
import re

import numpy as np
import pytest

from fakevlm.errors import UserError
from fakevlm.miniature.catalogue import KINDS, kinds_named
from fakevlm.miniature.world import SCENES, shoot
from fakevlm.pretraining import train
from fakevlm.pretraining.describe import LOOKS, ask
from fakevlm.pretraining.pool import GRID, render
from fakevlm.pretraining.recipe import Recipe

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
            train._gate(model, (), tmp_path / "gate.json", 0.93, "phase 1")
    assert len(calls) == 1
    assert train._gate(model, (), tmp_path / "gate.json", 0.75, "phase 1") == (0.8, 0.9)


@pytest.mark.slow
def test_a_killed_pretraining_repeats_no_phase_and_ships_what_loads(project, monkeypatch) -> None:
    from fakevlm.model.llava import load_model, load_processor

    small = (("hidden_size", 16), ("layers", 1), ("heads", 2), ("mlp", 32))
    recipe = Recipe(
        images=24, batch=4, dense_steps=2, caption_steps=2, vision=small, text=small, vocab_size=450
    )
    monkeypatch.setattr(train, "supervised", lambda *_: (0.95, 0.99))
    real = train.train_captions

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train_captions", killed)
    with pytest.raises(KeyboardInterrupt):
        train.pretrain(project / "base", recipe, threads=2)
    before = (project / "runs/base/dense.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(train, "train_captions", real)
    train.pretrain(project / "base", recipe, threads=2)
    assert (project / "runs/base/dense.safetensors").stat().st_mtime_ns == before
    assert json.loads((project / "runs/base/gate.json").read_text())["accuracy"] == 0.95
    model = load_model(project / "base")
    assert load_processor(project / "base").image_token_id == model.config.image_token_id
    card = (project / "base/README.md").read_text()
    assert "accuracy 0.950" in card
    assert "24 renders" in card

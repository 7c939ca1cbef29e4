"""How the miniature's base is made: its texts, its targets, the gate; a killed run repeats no phase."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conftest import killed_after
from fakevlm.errors import UserError
from fakevlm.model.llava import load_model, load_processor
from miniworld.pretraining import train
from miniworld.pretraining.pool import GRID, ask, render
from miniworld.pretraining.train import RECIPE, Trainer
from miniworld.world import SCENES, shoot

VERDICTS = r"(?i)\b(real|fake|authentic|genuine|synthe|generated|manipulated|artificial|unnatural|artifact)"
SMALL = {"hidden_size": 16, "layers": 1, "heads": 2, "mlp": 32}
ROUNDS = [replace(RECIPE.rounds[0], images=n, dense_steps=2, caption_steps=2) for n in (24, 16)]
TINY = replace(RECIPE, rounds=ROUNDS, batch=4, head_steps=2, vision=SMALL, text=SMALL, vocab_size=450)


def test_descriptions_never_speak_of_authenticity() -> None:
    for n in range(280):
        rng = np.random.default_rng([5, n])
        question, answer = ask(shoot(list(SCENES)[n % 7], rng, fake=n % 2 == 0), rng)
        assert not re.search(VERDICTS, question + " " + answer), answer
        assert "{" not in answer


def test_a_pool_is_the_same_however_many_processes_draw_it_and_has_targets_where_artifacts_are() -> None:
    one, two = render(0, 60, 1), render(0, 60, 2)
    assert np.array_equal(one.pixels, two.pixels)
    assert one.texts == two.texts
    assert one.kinds.shape == (60, GRID * GRID)
    with_artifacts = one.facts[:, 3] > 0
    assert 0 < with_artifacts.sum() < 60
    assert ((one.kinds != 0).any(1) == with_artifacts).all()


def test_a_base_that_fails_the_gate_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "gate", lambda *_: (0.8, 0.9))
    with pytest.raises(UserError, match=r"round 2, phase 1, .* 0\.800 of renders; 0\.93 is asked for"):
        train.pretrain(project / "base", TINY, threads=1)


@pytest.mark.slow
def test_a_killed_pretraining_repeats_no_phase_ships_what_loads_and_can_be_continued(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "gate", lambda *_: (0.95, 0.99))
    with killed_after(0, Trainer, "captions"):
        train.pretrain(project / "base", TINY, threads=2)
    phases, dense_phase = [], Trainer.dense_phase
    monkeypatch.setattr(Trainer, "dense_phase", lambda *a, **kw: phases.append(a) or dense_phase(*a, **kw))
    train.pretrain(project / "base", TINY, threads=2)
    assert len(phases) == 1, "of two, the first was done"
    model = load_model(project / "base")
    assert load_processor(project / "base").image_token_id == model.config.image_token_id
    card = (project / "base/README.md").read_text()
    assert "0.950 (AUC 0.990) as shipped here" in card
    assert "went on from" not in card
    # The last round goes on from the finished base.
    calls, dense = [], Trainer.dense

    def watched(self, pool, steps, rate, *, only_heads=False) -> None:
        before = [weight.detach().clone() for weight in self.tower.parameters()]
        dense(self, pool, steps, rate, only_heads=only_heads)
        calls.append((only_heads, all(map(torch.equal, before, self.tower.parameters())), pool.texts[0]))

    monkeypatch.setattr(Trainer, "dense", watched)
    train.pretrain(project / "second", TINY, threads=2, start=project / "base")
    # First the new heads alone, the tower untouched; then both; on renders that the first round did not see.
    assert [call[:2] for call in calls] == [(True, True), (False, False)]
    assert calls[0][2] == render(24, 1, 1).texts[0]
    one, two = (load_file(project / name / "model.safetensors") for name in ("base", "second"))
    assert one.keys() == two.keys()
    assert not all(torch.equal(one[name], two[name]) for name in one)
    assert "went on from" in (project / "second/README.md").read_text()

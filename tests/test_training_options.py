"""Options of fine-tuning beyond the paper's: mirrored images, a vision tower with a learning rate of its own."""

import pytest
from safetensors.torch import load_file
from transformers import TrainerState

import tinyllava
from fakevlm.errors import UserError
from fakevlm.model.llava import load_model
from fakevlm.training import loop
from fakevlm.training.finetune import finetune, freeze


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tune(base, tmp_path):
    """Trains with some settings and returns the log and the model's folder."""

    def run(*, steps=None, objective="explanation", **settings):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        data = tinyllava.records(18), tinyllava.records(6, 1)
        params = tinyllava.params(base, **settings)
        log = finetune(params, *data, objective, out, tmp_path / "work", steps=steps)
        return log, out / "model"

    return run


@pytest.mark.parametrize("objective", ["explanation", "head"])
def test_the_vision_tower_has_its_own_rate(base, tune, objective):
    _, plain = tune(steps=2, objective=objective)
    _, slow = tune(steps=2, objective=objective, vision_learning_rate=1e-4)
    # Warm-up takes the first of two steps, so each weight moves by Adam's first step: by its rate, whatever the gradient.
    before, at_one, at_two = (load_file(folder / "model.safetensors") for folder in (base, plain, slow))
    moved = 0
    for name in before:
        whole, part = (float((after[name] - before[name]).abs().max()) for after in (at_one, at_two))
        if whole > 5e-3:  # elsewhere there is next to no gradient
            assert part == pytest.approx(
                whole * (0.01 if name.startswith("vision_tower.") else 1.0), rel=0.05
            )
            moved += name.startswith("vision_tower.")
    assert moved > 10


def test_the_log_shows_the_rate_of_the_language_model(tune):
    rates = [tune(steps=4, vision_learning_rate=rate)[0]["learning_rate"].max() for rate in (None, 1e-4)]
    assert rates[0] == rates[1]


@pytest.mark.parametrize("objective", ["explanation", "label", "head"])
def test_mirrored_images_are_learned_too(tune, objective):
    plain, _ = tune(steps=40, objective=objective)
    log, _ = tune(steps=40, objective=objective, mirror=True)
    loss = log["val_loss"].dropna()
    assert loss.iloc[-1] < loss.iloc[0] / 2
    assert not log["loss"].equals(plain["loss"])


def test_a_rate_for_a_frozen_tower_is_a_mistake(base):
    idle = tinyllava.params(base, train_vision=False, vision_learning_rate=1e-4).finetune
    with pytest.raises(UserError, match="vision_learning_rate is set, but the vision tower is frozen"):
        freeze(load_model(base, device="cpu"), idle)


def test_checkpoints_are_kept_as_often_as_is_said_now(tmp_path):
    """Gone on from a checkpoint, the trainer has that one's state, and in it how often was said then."""
    tune = tinyllava.params(tmp_path, checkpoint_every=2).finetune
    args = loop.arguments(tune, tmp_path, steps=32, seed=1, workers=0)
    state = TrainerState(max_steps=32, save_steps=8, eval_steps=8, logging_steps=8)
    loop._Often().on_train_begin(args, state, None)
    assert (state.save_steps, state.eval_steps) == (2, 2)

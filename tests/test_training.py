"""Fine-tuning: learns, freezes what it is told to, counts the loss on answers only, writes the same bytes every time."""

import re

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

import tinyllava
from fakevlm.config.params import DeepSpeed
from fakevlm.errors import UserError
from fakevlm.model.collate import IGNORE, Collator
from fakevlm.model.llava import load_model, load_processor
from fakevlm.training import loop
from fakevlm.training.data import Batches, Examples
from fakevlm.training.finetune import Run, finetune, freeze
from fakevlm.training.head import LlavaForVerdict, load_head, predict_head

QUESTIONS = (None, "Does the person's nose look real or fake, and why?")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """One explanatory tuning that several tests look at: its folder, work folder and log."""
    folder = tmp_path_factory.mktemp("tuned")
    params = tinyllava.params(base, epochs=8.0)
    log = finetune(
        params, tinyllava.records(18), tinyllava.records(6, 1), "explanation", folder / "out", folder / "work"
    )
    return folder, log


@pytest.fixture(scope="module")
def head(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    params = tinyllava.params(base, epochs=8.0, gradient_accumulation=2, batch_size=2)
    finetune(params, tinyllava.records(18), tinyllava.records(6, 1), "head", folder / "out", folder / "work")
    return folder / "out"


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# ── what a training makes ────────────────────────────────────────────────────────────────────────────────────────────


def test_it_learns_and_logs(tuned):
    folder, log = tuned
    assert list(log.columns) == ["step", "epoch", "loss", "learning_rate", "val_loss"]
    loss, val_loss = log["loss"].dropna(), log["val_loss"].dropna()
    assert loss.iloc[-1] < loss.iloc[0] / 2
    assert val_loss.iloc[-1] < val_loss.iloc[0] / 2
    assert log["step"].max() == 40  # 18 records, 4 a step, 8 epochs
    assert log["epoch"].max() == 8
    assert log["learning_rate"].max() <= 1e-2
    pd.testing.assert_frame_equal(pd.read_csv(folder / "out/log.csv"), log, rtol=1e-6)


def test_export_loads_as_any_llava(tuned):
    folder, _ = tuned
    names = {file.name for file in (folder / "out/model").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
    } <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]
    model, processor = load_model(folder / "out/model", device="cpu"), load_processor(folder / "out/model")
    batch = Collator(processor, for_generation=True)([tinyllava_example()])
    tokens = model.generate(**batch, max_new_tokens=20, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert processor.decode(tokens).startswith(" This is a ")


def tinyllava_example():
    from fakevlm.model.collate import Example

    return Example(tinyllava.records(1)[0].pil())


def test_checkpoints_are_few_complete_and_free_of_pickled_arguments(tuned):
    (run,) = (tuned[0] / "work").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-36", "checkpoint-40"]
    for path in run.iterdir():
        assert (path / "complete").exists()
        assert not (path / "training_args.bin").exists()


def test_again_gives_the_same_bytes_with_and_without_its_checkpoints(base, tuned, monkeypatch):
    folder, _ = tuned
    before = contents(folder / "out")
    args = (tinyllava.params(base, epochs=8.0), tinyllava.records(18), tinyllava.records(6, 1), "explanation")
    (folder / "work/explanation-of-another-profile").mkdir()
    Run(*args, folder / "work").forget()
    assert [run.name for run in (folder / "work").iterdir()] == ["explanation-of-another-profile"]
    (folder / "work/explanation-of-another-profile").rmdir()
    finetune(*args, folder / "out", folder / "work")
    assert contents(folder / "out") == before
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("it had finished already"))
    finetune(*args, folder / "out", folder / "work")
    assert contents(folder / "out") == before


def test_other_data_or_parameters_are_another_run(base, tmp_path):
    records, val = tinyllava.records(4), tinyllava.records(2, 1)
    other = tinyllava.records(4)
    other[0].references[0] += " More."
    for tune, data in ({}, records), ({"learning_rate": 1e-3}, records), ({}, other):
        params = tinyllava.params(base, epochs=1.0, **tune)
        finetune(params, data, val, "explanation", tmp_path / "out", tmp_path / "work")
    assert len(list((tmp_path / "work").iterdir())) == 3


# ── objectives ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_label_objective_learns_one_word(base):
    collator = Collator(load_processor(base), 120)
    examples = Examples(tinyllava.records(2), collator, "label")
    batch = Batches(collator, "label")([examples[0], examples[1]])
    said = [collator.processor.decode(row[row != IGNORE]) for row in batch["labels"]]
    assert said == [" Fake</s>", " Real</s>"]


def test_head_learns_and_predicts_alike_in_any_batch(head):
    loaded = load_head(head / "model")
    assert isinstance(loaded.model, LlavaForVerdict)
    records = tinyllava.records(9, 2, QUESTIONS)
    together = predict_head(loaded.model, loaded.processor, records, 9)
    assert together[0] > 0.9 > 0.1 > together[1]
    for size in 1, 4:
        assert predict_head(loaded.model, loaded.processor, records, size) == pytest.approx(
            together, abs=1e-5
        )
    standard = [record for record in records if record.question is None]
    expected = predict_head(loaded.model, loaded.processor, standard, 9)
    assert loaded.predict([record.pil() for record in standard]) == pytest.approx(expected, abs=1e-6)
    assert loaded.predict([]).shape == (0,)


def test_head_trains_no_words(base, head):
    before, after = (load_file(folder / "model.safetensors") for folder in (base, head / "model"))
    assert set(after) - set(before) == {"score.weight", "score.bias"}
    assert torch.equal(*(weights["language_model.lm_head.weight"] for weights in (before, after)))
    assert not torch.equal(
        *(weights["language_model.model.layers.0.mlp.up_proj.weight"] for weights in (before, after))
    )


def test_head_starts_from_all_of_the_base(base, tmp_path):
    """The library loads by name and leaves what it does not find random: nothing but the head may be new."""
    plain, with_head = (
        load_model(base, device="cpu", kind=k) for k in (LlavaForConditionalGeneration, LlavaForVerdict)
    )
    old, new = plain.state_dict(), with_head.state_dict()
    assert {name for name in new if name not in old or not torch.equal(old[name], new[name])} == {
        "score.weight",
        "score.bias",
    }
    with_head.save_pretrained(tmp_path)
    again = load_model(tmp_path, device="cpu", kind=LlavaForVerdict).state_dict()
    assert all(torch.equal(new[name], again[name]) for name in new)
    words = load_model(tmp_path, device="cpu").state_dict()  # the folder is a plain LLaVA's as well
    assert all(torch.equal(old[name], words[name]) for name in old)


def test_accumulation_sums_up_to_the_larger_batch(base, tmp_path):
    weights = []
    for size, accumulation in (4, 1), (2, 2):
        for objective in "explanation", "head":
            params = tinyllava.params(base, epochs=1.0, batch_size=size, gradient_accumulation=accumulation)
            data = tinyllava.records(8), tinyllava.records(2, 1)
            finetune(params, *data, objective, tmp_path / f"{objective}{size}", tmp_path / "work")
            weights.append(load_file(tmp_path / f"{objective}{size}/model/model.safetensors"))
    for whole, parts in (weights[0], weights[2]), (weights[1], weights[3]):
        for name in whole:
            # Adam's first steps turn rounding of tiny gradients into visible differences, hence the loose bound.
            assert torch.allclose(whole[name], parts[name], atol=2e-3), name


def test_loss_counts_answers_only_and_equals_the_plain_one(base):
    """The sliced, maskless batch gives the loss of the whole, masked one."""
    model, collator = load_model(base, device="cpu"), Collator(load_processor(base), 120)
    examples = Examples(tinyllava.records(5, 0, QUESTIONS), collator, "explanation")
    items = [examples[n] for n in range(5)]
    whole = collator.pad([item.encoded for item in items])
    batch = Batches(collator, "explanation")(items)
    assert batch["labels"].shape[1] < whole["labels"].shape[1]
    assert (batch["labels"] != IGNORE).sum() == (whole["labels"] != IGNORE).sum()
    with torch.no_grad():
        loss = model(**batch).loss
        assert loss == pytest.approx(model(**whole).loss.item(), rel=1e-5)
        for i, item in enumerate(items):  # other prompts as labels change nothing
            assert (whole["labels"][i, : item.encoded.prompt] == IGNORE).all()


# ── switches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("part", ["vision", "projector", "llm"])
def test_only_what_is_switched_on_moves(base, tmp_path, part):
    switches = {f"train_{name}": name == part for name in ("vision", "projector", "llm")}
    params = tinyllava.params(base, epochs=3.0, **switches)  # the first step warms up: its rate is 0
    finetune(
        params,
        tinyllava.records(4),
        tinyllava.records(2, 1),
        "explanation",
        tmp_path / "out",
        tmp_path / "work",
    )
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "out/model"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    own = {
        "vision": r"vision_tower\.",
        "projector": r"multi_modal_projector\.",
        "llm": r"language_model\.",  # as files name them, lm_head included
    }[part]
    assert moved
    assert all(re.match(own, name) for name in moved), moved


@pytest.mark.parametrize("tune", [{"gradient_checkpointing": True}, {"precision": "bf16"}])
def test_cheaper_ways_reach_about_the_same_loss(base, tuned, tmp_path, tune):
    params = tinyllava.params(base, epochs=8.0, **tune)
    log = finetune(
        params,
        tinyllava.records(18),
        tinyllava.records(6, 1),
        "explanation",
        tmp_path / "out",
        tmp_path / "w",
    )
    bound = 1e-5 if "gradient_checkpointing" in tune else 0.05
    assert log["val_loss"].dropna().iloc[-1] == pytest.approx(
        tuned[1]["val_loss"].dropna().iloc[-1], rel=bound
    )
    assert {w.dtype for w in load_file(tmp_path / "out/model/model.safetensors").values()} == {torch.float32}


def test_bf16_on_a_cpu_rounds_factors_while_it_trains_and_not_after(base, tmp_path, monkeypatch):
    seen, honest = [], loop.train
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def watched(*args):
        seen.append(torch.get_float32_matmul_precision())
        honest(*args)

    monkeypatch.setattr(loop, "train", watched)
    before = torch.get_float32_matmul_precision()
    for precision in "bf16", "fp32":
        params = tinyllava.params(base, precision=precision)
        data = tinyllava.records(4), tinyllava.records(2, 1)
        finetune(params, *data, "label", tmp_path / "o", tmp_path / "w", steps=1)
        assert torch.get_float32_matmul_precision() == before
    assert seen == ["medium", before]


def test_steps_override_epochs(base, tmp_path):
    log = finetune(
        tinyllava.params(base),
        tinyllava.records(4),
        tinyllava.records(2, 1),
        "label",
        tmp_path / "o",
        tmp_path / "w",
        steps=3,
    )
    assert log["step"].max() == 3


def test_intervals_and_totals(base):
    assert [loop.log_interval(n) for n in (1, 7, 25, 100, 101)] == [1, 7, 5, 10, 1]
    tune = tinyllava.params(base, epochs=2.5, batch_size=4, gradient_accumulation=2).finetune
    assert loop.total_steps(17, tune) == 8  # 3 steps an epoch


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_mistakes_are_named(base, tmp_path):
    records, val = tinyllava.records(2), tinyllava.records(2, 1)
    places = tmp_path / "out", tmp_path / "work"
    with pytest.raises(UserError, match="no objective 'labels'"):
        finetune(tinyllava.params(base), records, val, "labels", *places)
    two = DeepSpeed(stage=2, processes=2)
    with pytest.raises(UserError, match=r"says 2 process\(es\), and 1 were started"):
        finetune(tinyllava.params(base, deepspeed=two), records, val, "label", *places)
    with pytest.raises(UserError, match=r"max_length is 20"):
        finetune(tinyllava.params(base, max_length=20), records, val, "label", *places)
    with pytest.raises(UserError, match="no records to train on"):
        finetune(tinyllava.params(base), [], val, "label", *places)
    frozen = tinyllava.params(base, train_vision=False, train_projector=False, train_llm=False).finetune
    with pytest.raises(UserError, match="all frozen"):
        freeze(load_model(base, device="cpu"), frozen)
    freeze(load_model(base, device="cpu", kind=LlavaForVerdict), frozen)  # a linear probe: the head is left

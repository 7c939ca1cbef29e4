"""Fine-tuning in one process: what is learned, what is frozen, and how a killed training goes on."""

import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

import tinyllava
from conftest import ROOT, killed_after
from fakevlm.config.params import DeepSpeed
from fakevlm.data.records import write_records
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.inference.generate import predictor
from fakevlm.model import llava
from fakevlm.model.collate import IGNORE, Collator
from fakevlm.model.head import load_head
from fakevlm.model.llava import load_model, load_processor
from fakevlm.training import finetune, trainer
from fakevlm.training.data import Examples, answer, random_subset
from smallworld import content

pytestmark = pytest.mark.slow
QUESTIONS = (None, "Does the person's nose look real or fake, and why?")


def tuned(base, folder, *args, **options):
    """Trains and exports to `folder/out`; returns the log."""
    run = tinyllava.run(base, folder / "work", *args, **options)
    run.train()
    return run.export(folder / "out")


@pytest.fixture(scope="module")
def explained(base, tmp_path_factory):
    """One explanatory tuning of 40 steps that several tests read: its folder and log."""
    folder = tmp_path_factory.mktemp("explained")
    return folder, tuned(base, folder, epochs=8.0)


def test_it_learns_logs_and_exports_what_any_llava_loads(explained):
    folder, log = explained
    assert list(log.columns) == ["step", "epoch", "loss", "learning_rate", "val_loss"]
    for column in "loss", "val_loss":
        values = log[column].dropna()
        assert values.iloc[-1] < values.iloc[0] / 2
    assert (log["step"].max(), log["epoch"].max()) == (40, 8)  # 18 records, 4 a step, 8 epochs
    pd.testing.assert_frame_equal(pd.read_csv(folder / "out/log.csv"), log, rtol=1e-6)
    (run,) = (folder / "work").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-36", "checkpoint-40"]
    for path in run.iterdir():
        assert not (path / "training_args.bin").exists(), "it would be a pickle"
    names = {file.name for file in (folder / "out/model").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin"))]
    llava = predictor(folder / "out/model", "fp32", batch_size=1, max_new_tokens=20).model
    assert llava(llava.prepare(tinyllava.records(1)))["text"][0].startswith("This is a ")


def test_what_is_done_is_exported_and_not_trained_again(base, explained, tmp_path, monkeypatch):
    shutil.copytree(explained[0] / "work", tmp_path / "work")
    monkeypatch.setattr(trainer, "train", lambda *_: pytest.fail("it had finished already"))
    tuned(base, tmp_path, epochs=8.0)
    assert content(tmp_path / "out") == content(explained[0] / "out")
    for name in "model.safetensors", "tokenizer.json":  # the last number's last bit, and another space
        file = tmp_path / "out/model" / name
        data = file.read_bytes()
        file.write_bytes(data[:-4] + bytes([data[-4] ^ 1]) + data[-3:])
        with pytest.raises(UserError, match=f"{name} is not as it was written"):
            load_model(tmp_path / "out/model")
        file.write_bytes(data)
    load_model(tmp_path / "out/model")


def test_the_folder_is_named_after_everything_that_decides_the_weights(base, tmp_path, monkeypatch, capsys):
    def folder(objective="label", steps=None, data=None, **tune):
        return tinyllava.run(base, tmp_path, objective, steps, data, **tune).folder

    plain, two = folder(), {"stage": 2, "processes": 4}
    assert folder(checkpoint_every=9, gradient_checkpointing=True) == plain
    assert folder(steps=9, epochs=1.0) == folder(steps=9, epochs=2.0)  # the study does not use epochs
    ranks = folder(deepspeed=DeepSpeed(**two))
    spread = two | {"processes": 2, "nodes": 2, "hostfile": "hosts", "offload": "optimizer"}
    assert folder(deepspeed=DeepSpeed(**spread)) == ranks
    others = [folder("head"), folder(epochs=1.0), folder(steps=9), folder(learning_rate=1e-3)]
    others += [folder(deepspeed=DeepSpeed(**two | change)) for change in ({"stage": 3}, {"processes": 2})]
    others.append(folder(data=(tinyllava.records(4), tinyllava.records(2, 1))))
    for target, name in (finetune.cache, "code_version"), (finetune, "version"):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, lambda *names: "another")
            others.append(folder())
    assert len({plain, ranks, *others}) == 2 + len(others)
    (plain / "checkpoint-4").mkdir()
    for rate, told in (1e-2, ""), (1e-3, f"begins anew.*rm -r {plain}"):
        tinyllava.run(base, tmp_path, "label", learning_rate=rate).say_what_is_left()
        assert re.fullmatch(told, capsys.readouterr().err.strip()[len("label: training ") :], re.DOTALL)


def test_a_record_without_answer_is_named():
    (record,) = tinyllava.records(1)
    record.references.clear()
    with pytest.raises(UserError, match="no reference answer"):
        answer(record, "explanation")


def test_head_learns_and_predicts_alike_in_any_batch(base, tmp_path):
    tuned(base, tmp_path, "head", epochs=8.0, gradient_accumulation=2, batch_size=2)
    head, images = load_head(tmp_path / "out/model"), [record.pil() for record in tinyllava.records(9, 2)]
    together = head.predict(images)
    assert together[0] > 0.9 > 0.1 > together[1]
    parts = [*head.predict(images[:4]), *head.predict(images[4:])]
    assert parts == pytest.approx(together.tolist(), abs=1e-5)


def test_loss_counts_answers_only_and_gives_the_plain_gradients(base):
    library = LlavaForConditionalGeneration.from_pretrained(base)
    model, collator = load_model(base, device="cpu"), Collator(load_processor(base), 120)
    examples = Examples(tinyllava.records(5, 0, QUESTIONS), collator, "explanation")
    items = [examples[n] for n in range(5)]
    whole, batch = collator.pad([encoded for encoded, _ in items]), examples.collate(items)
    assert batch["labels"].shape[1] < whole["labels"].shape[1]
    assert (batch["labels"] != IGNORE).sum() == (whole["labels"] != IGNORE).sum()

    def learn(batch, model=model):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    plain = learn(whole, library)
    assert all(map(torch.equal, learn(whole), plain)), "to the bit"
    torch.testing.assert_close(learn(batch), plain, rtol=1e-4, atol=1e-6)
    model.train().activation_checkpointing_enable()
    torch.testing.assert_close(learn(batch), plain, rtol=1e-4, atol=1e-6)


def test_linear_layers_multiply_in_16_bits_and_return_32():
    torch.manual_seed(0)
    layer, x, learned = torch.nn.Linear(64, 48), torch.randn(30, 64, requires_grad=True), []
    for layer.__class__ in torch.nn.Linear, llava.Linear16:
        out = layer(x)
        learned.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    weight, bias, factor = (t.detach().bfloat16().double() for t in (layer.weight, layer.bias, x))
    torch.testing.assert_close(out.double(), factor @ weight.T + bias, rtol=2**-8, atol=1e-6)
    for plain, rounded in zip(*learned, strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - plain).norm() < 0.01 * plain.norm()


def test_mirror_flips_half_of_the_images_anew_each_epoch_whether_kept_or_decoded_when_needed(base, tmp_path):
    collator, records = Collator(load_processor(base), 120), tinyllava.records(60, 0, QUESTIONS)
    write_records(records, tmp_path, shard_rows=20)
    plain = Examples(records, collator, "explanation")
    kept = Examples(records, collator, "explanation", 1 << 20, mirror=3)
    lazy = Examples(Records(tmp_path), collator, "explanation", 0, mirror=3)
    assert (kept.items is None, lazy.items is None) == (False, True)

    def flipped(examples, epoch):
        examples.epoch = epoch
        for (one, label), (other, same_label) in zip(plain, examples, strict=True):
            assert label == same_label
            assert torch.equal(one.ids, other.ids)
            same = torch.equal(one.pixels, other.pixels)
            assert same or torch.equal(one.pixels.flip(-1), other.pixels)
            yield not same

    first, second = list(flipped(kept, 0)), list(flipped(kept, 1))
    assert 18 <= sum(first) <= 42
    assert first != second
    assert list(flipped(lazy, 1)) == second
    assert list(flipped(kept, 0)) == first


def test_draw_is_seeded_and_keeps_order():
    records = tinyllava.records(20)
    drawn = random_subset(records, 7, 3)
    assert drawn == random_subset(records, 7, 3) != random_subset(records, 7, 4)
    assert [records.index(r) for r in drawn] == sorted(records.index(r) for r in drawn)
    assert random_subset(records, 20, 3) == records


def test_a_step_has_random_examples_and_its_batches_like_lengths(base):
    examples = Examples(tinyllava.records(72), Collator(load_processor(base), 120), "label")
    examples.lengths = np.random.default_rng(0).integers(20, 200, 72).tolist()
    examples.epoch, generator = 2, torch.Generator().manual_seed(5)
    drawn, ordered = torch.randperm(72, generator=generator).tolist(), list(trainer._Order(examples, 32, 3))
    for start in 0, 32, 64:
        step = slice(start, start + 32)
        assert ordered[step] == sorted(drawn[step], key=examples.lengths.__getitem__)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("vision", r"vision_tower\."), ("projector", r"multi_modal_projector\."),
        ("llm", r"language_model\."), ("head", r"score\."),
    ],
)  # fmt: skip
def test_only_what_is_switched_on_moves(base, tmp_path, part, names):
    switches = {f"train_{name}": name == part for name in ("vision", "projector", "llm")}
    data, objective = (tinyllava.records(4), tinyllava.records(2, 1)), "head" if part == "head" else "label"
    tuned(base, tmp_path, objective, data=data, epochs=3.0, **switches)  # the first step's rate is 0
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "out/model"))
    moved = {name for name in after if name not in before or not torch.equal(before[name], after[name])}
    assert moved
    assert all(re.match(names, name) for name in moved), moved


@pytest.mark.parametrize(
    ("tune", "tolerance"),
    [({"compile": True}, 1e-4), ({"precision": "bf16", "gradient_checkpointing": True}, 0.05)],
)
def test_cheaper_ways_reach_about_the_same_loss(base, explained, tmp_path, tune, tolerance, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Inductor's kernels are torch's own matter, and take minutes to build on a CPU.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(trainer, "multiplies_16_bits", lambda: True)  # also where it takes longer
    logs = explained[1], tuned(base, tmp_path, epochs=8.0, **tune)
    plain, cheap = (log["val_loss"].dropna().iloc[-1] for log in logs)
    assert cheap == pytest.approx(plain, rel=tolerance)
    assert (cheap != plain) == ("precision" in tune)
    weights = load_file(tmp_path / "out/model/model.safetensors").values()
    assert {w.dtype for w in weights} == {torch.float32}


def test_the_vision_tower_has_its_own_rate(base, tmp_path):
    options = {"steps": 2, "checkpoint_every": 2}
    rates = [(str(rate), {"vision_learning_rate": rate, **options}) for rate in (None, 1e-4)]
    logs = [tuned(base, tmp_path / name, **tune) for name, tune in rates]
    assert logs[0]["learning_rate"].max() == logs[1]["learning_rate"].max()  # the language model's is logged
    # Warm-up takes the first of two steps, so each weight moves by Adam's first step: by its rate, whatever
    # the gradient.
    folders = (base, tmp_path / "None/out/model", tmp_path / "0.0001/out/model")
    before, plain, slow = (load_file(folder / "model.safetensors") for folder in folders)
    in_tower = 0
    for name in before:
        whole, part = (float((after[name] - before[name]).abs().max()) for after in (plain, slow))
        if whole > 5e-3:  # elsewhere there is next to no gradient
            tower = name.startswith("vision_tower.")
            assert part == pytest.approx(whole * (0.01 if tower else 1.0), rel=0.05)
            in_tower += tower
    assert in_tower > 10


FROZEN = dict.fromkeys(("train_vision", "train_projector", "train_llm"), False)
DIVERGES = {"learning_rate": 1e30, "epochs": 4.0}  # the first step's rate is 0
DIVERGED = (
    r"loss is nan for the records made/0/\d.png, made/0/\d.png after 2 steps, at learning rate \d\.\d+e\+29"
)


@pytest.mark.parametrize(
    ("objective", "train", "tune", "message"),
    [
        ("labels", 2, {}, "no objective 'labels'"), ("label", 0, {}, "no records to train on"),
        ("label", 2, {"deepspeed": DeepSpeed(stage=2, processes=2)}, r"says 2 process.*, and 1 were"),
        ("label", 2, {"max_length": 20}, "max_length is 20"), ("label", 2, FROZEN, "all frozen"),
        ("label", 2, DIVERGES, DIVERGED), ("head", 2, DIVERGES | {"checkpoint_every": 2}, "validation loss"),
    ],
)  # fmt: skip
def test_mistakes_are_named(base, tmp_path, objective, train, tune, message):
    data = tinyllava.records(train), tinyllava.records(2, 1)
    with pytest.raises(UserError, match=message):
        tinyllava.run(base, tmp_path, objective, data=data, **tune).train()


HEAD = {"objective": "head", "gradient_accumulation": 2, "batch_size": 2}
BF16 = {"precision": "bf16", "mirror": True, "vision_learning_rate": 2e-3}


@pytest.mark.parametrize(("options", "damaged"), [(HEAD, None), (BF16, "optimizer.pt")])
def test_it_goes_on_where_it_was(base, tmp_path, options, damaged, capsys, two_threads):
    options |= {"steps": 5, "checkpoint_every": 1, "data": (tinyllava.records(10), tinyllava.records(4, 1))}
    assert tuned(base, tmp_path / "a", **options)["step"].max() == 5  # three are an epoch
    with killed_after(6, Examples, "collate"):
        tuned(base, tmp_path / "b", **options)
    (run,) = (tmp_path / "b/work").iterdir()
    reached = int(trainer.last(run).name.split("-")[1])
    assert 0 < reached < 5
    # A later checkpoint that a kill left half-written: all there but its mark.
    (run / "checkpoint-5").mkdir()
    (run / "checkpoint-5/model.safetensors").write_bytes(b"half")
    if damaged:
        with (run / f"checkpoint-{reached}" / damaged).open("r+b") as file:
            file.write(b"?")
    tuned(base, tmp_path / "b", **options)
    assert content(tmp_path / "a/out") == content(tmp_path / "b/out")
    printed = capsys.readouterr().err
    assert "checkpoint-5 is incomplete or damaged (complete)" in printed
    assert (f"checkpoint-{reached} is incomplete or damaged ({damaged})" in printed) == bool(damaged)


def test_the_code_in_the_folders_name_is_what_the_stage_depends_on():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    code = {"src/" + name.replace(".", "/") for name in finetune.CODE}
    deps = {dep.removesuffix(".py") for dep in stages["finetune"]["deps"] if dep.startswith("src/")}
    assert code == deps

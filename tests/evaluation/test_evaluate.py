"""One benchmark evaluated from records to files. Tiny random models, a throwaway project."""

import json
import shutil
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tinyllava
from conftest import changed, killed_after
from fakevlm.config.params import Params, load_params
from fakevlm.data.ground_truth import Artifact, GroundTruth, write_ground_truth
from fakevlm.data.records import Record, encode, write_records
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks
from fakevlm.evaluation.metrics import COLUMNS
from fakevlm.inference import generate
from fakevlm.model.head import LlavaForVerdict, load_head
from fakevlm.model.llava import load_model, load_processor
from smallworld import content

ANSWER = "This is a fake image. Texture: the surface is overly smooth and waxy."


def _image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 40 + 5 * seed, (32, 32, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "PNG")


FAKECLUE = [
    Record(
        f"genimage/{n:02}.png", _image(n), n % 2, "genimage", f"{n}", ("animal", "doc")[n // 6],
        None if n % 2 else "adm", references=[ANSWER, "A second\nreference."],
    )
    for n in reversed(range(12))
]  # fmt: skip
QUESTIONS = ("Does the image looks real/fake?", "Does the person's nose look real/fake?")
DDVQA = [
    Record(
        f"ff++/{n // 2}.png#{n % 2}", _image(n // 2), n // 2 % 2, "ddvqa", f"{n // 2}", "deepfake",
        question=QUESTIONS[n % 2], references=["The image looks fake."],
    )
    for n in range(8)
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "tuned")):
        tinyllava.build(folder / name, seed)
    return folder


@pytest.fixture
def params(project: Path, weights: Path) -> Params:
    """A project in which every earlier stage has run."""
    write_records(FAKECLUE, project / "artifacts/annotate/fakeclue/test")
    write_records(DDVQA, project / "artifacts/collect/benchmarks/ddvqa")
    halo = [Artifact("halo", (0.1, 0.1, 0.5, 0.5), 0.9)]
    truths = [GroundTruth(r.id, r.label, "animal", halo if r.label == 0 else []) for r in FAKECLUE]
    write_ground_truth(truths, project / "artifacts/collect/ground_truth.jsonl")
    for place in ("finetune/head/model", "experts/cnnspot"):
        (project / "artifacts" / place).mkdir(parents=True)
        (project / "artifacts" / place / "config.json").write_text("{}")
    sizes = {"batch_size": 5, "max_new_tokens": 6, "bootstrap": 50, "model": str(weights / "tuned")}
    params = load_params("mini").model_copy(update={"base": str(weights / "base")})
    return changed(params, "evaluate", methods=["FakeVLM", "LLaVA (untuned)", "CNNSpot"], **sizes)


@pytest.fixture(autouse=True)
def detector(monkeypatch) -> None:
    dark = SimpleNamespace(predict=tinyllava.darkness)
    monkeypatch.setattr("fakevlm.evaluation.experts.load_expert", lambda folder: dark)
    monkeypatch.setattr("fakevlm.model.head.load_head", lambda folder, precision: dark)


@pytest.mark.slow  # loads the sentence encoder
def test_evaluates_every_method_and_writes_all_files(params: Params, project: Path) -> None:
    predictions, _ = benchmarks.evaluate(params, "fakeclue")
    out = project / "artifacts/evaluate/fakeclue"
    assert set(content(out)) == {"metrics.json", "predictions.parquet", "scores.csv"}
    stored = pd.read_parquet(out / "predictions.parquet")
    pd.testing.assert_frame_equal(stored, predictions)
    methods = {name: frame.reset_index() for name, frame in stored.groupby("method")}
    assert {len(frame) for frame in methods.values()} == {12}
    assert methods["CNNSpot"]["text"].isna().all()
    assert set(stored["reference"]) == {f"{ANSWER}\nA second reference."}
    assert (methods["FakeVLM"]["p_fake"] != methods["LLaVA (untuned)"]["p_fake"]).any()
    table = pd.read_csv(out / "scores.csv")
    assert list(table.columns) == COLUMNS
    values = table[table["subset"] == "all"].pivot(index="method", columns="metric", values="value")
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"acc", "f1_real", "f1_fake", "f1_macro", "auc", "unparsed", "rouge_l", "css"} <= set(metrics)
    assert metrics == pytest.approx(values.loc["FakeVLM"].dropna().to_dict(), abs=1e-6)
    shown = [record.pil() for record in sorted(FAKECLUE, key=attrgetter("id"))]
    assert methods["CNNSpot"]["p_fake"].to_numpy() == pytest.approx(tinyllava.darkness(shown), abs=1e-6)


@pytest.fixture
def batches(monkeypatch) -> list[list[str | None]]:
    """The questions of each batch that a LLaVA answers."""
    asked, plain = [], generate.Llava.__call__

    def call(self, prepared):
        asked.append([example.question for example in prepared[0]])
        return plain(self, prepared)

    monkeypatch.setattr(generate.Llava, "__call__", call)
    return asked


def test_killed_between_batches_it_asks_nothing_twice(params: Params, project: Path, batches: list) -> None:
    with killed_after(4, generate.Llava, "__call__"):  # in the second batch of the second model
        benchmarks.evaluate(params, "fakeclue")
    assert not (project / "artifacts/evaluate").exists()
    benchmarks.evaluate(params, "fakeclue")
    resumed = content(project / "artifacts/evaluate")
    assert len(batches) == 6  # 2 models × 3 batches
    shutil.rmtree(project / "runs")
    benchmarks.evaluate(params, "fakeclue")
    assert len(batches) == 12
    assert content(project / "artifacts/evaluate") == resumed, "the cache changes nothing"


def test_ddvqa_asks_each_record_its_own_question(params: Params, batches: list) -> None:
    predictions, _ = benchmarks.evaluate(params, "ddvqa")
    questions = [question for batch in batches for question in batch]
    assert sorted(questions) == sorted(2 * [record.question for record in DDVQA])
    assert set(predictions["question"]) == set(questions)
    limited = changed(params, "evaluate", methods=["CNNSpot"], limit=2)
    assert len(benchmarks.evaluate(limited, "ddvqa")[0]) == 4


def test_sample_keeps_questions_together_and_grows_with_the_limit() -> None:
    drawn = [benchmarks.sample(DDVQA, limit, seed=1) for limit in (1, 2, 3)]
    assert [len(d) for d in drawn] == [2, 4, 6]
    ids = [[r.id for r in d] for d in drawn]
    assert set(ids[0]) < set(ids[1]) < set(ids[2])
    assert ids[2] == [r.id for r in DDVQA if r.id in ids[2]]
    assert benchmarks.sample(DDVQA, None, 1) == benchmarks.sample(DDVQA, 4, 1) == DDVQA
    assert {tuple(r.id for r in benchmarks.sample(DDVQA, 1, seed)) for seed in range(20)} != {tuple(ids[0])}


@pytest.mark.parametrize(
    ("benchmark", "changes", "message"),
    [
        ("fakeclue", {"model": None}, "dvc repro finetune@explanation"),
        ("fakeclue", {"methods": ["FakeVLM", "UnivFD"]}, "dvc repro experts"),
        ("fakeclue", {"model": "no/such-folder/at-all"}, "no/such-folder/at-all"),
        ("imagenet", {}, "choose one of: fakeclue, loki"),
    ],
)
def test_what_is_missing_is_named_before_anything_runs(params, project, benchmark, changes, message) -> None:
    with pytest.raises(UserError, match=message):
        benchmarks.evaluate(changed(params, "evaluate", **changes), benchmark)
    assert not (project / "artifacts/evaluate").exists()


def test_the_linear_head_answers_as_it_does_by_itself(params, project, weights, monkeypatch) -> None:
    monkeypatch.setattr("fakevlm.model.head.load_head", load_head)
    head = project / "artifacts/finetune/head/model"
    torch.manual_seed(0)
    model = load_model(weights / "base", kind=LlavaForVerdict, new=("score.weight", "score.bias"))
    model.save_pretrained(head)
    load_processor(weights / "base").save_pretrained(head)
    answers = benchmarks.method("LLaVA + Linear Head", params)(FAKECLUE, None)
    expected = load_head(head, params.evaluate.precision).predict([record.pil() for record in FAKECLUE])
    assert answers["p_fake"] == pytest.approx(expected, abs=1e-5)
    assert np.ptp(answers["p_fake"]) > 0
    assert (answers["verdict"] == np.where(answers["p_fake"] >= 0.5, "fake", "real")).all()

"""One benchmark evaluated from records to files. Tiny random models, a throwaway project."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import tinyllava
from fakevlm import paths
from fakevlm.config.params import Params, load_params
from fakevlm.data.ground_truth import Artifact, GroundTruth, write_ground_truth
from fakevlm.data.records import Record, write_records
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks, detectors, methods
from fakevlm.evaluation.experts import load_expert, train_experts
from fakevlm.evaluation.scores import COLUMNS
from fakevlm.inference import generate
from fakevlm.model.head import LlavaForVerdict, load_head
from fakevlm.model.llava import load_model, load_processor

MANIPULATIONS = ("Deepfakes", "Face2Face")
ANSWER = "This is a fake image. Texture: the surface is overly smooth and waxy."


def _image(seed: int, size: int = 32) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 40 + 5 * seed, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _fakeclue(count: int = 12) -> list[Record]:
    return [
        Record(
            id=f"genimage/{n:02}.png",
            image=_image(n),
            label=n % 2,
            source="genimage",
            item=f"{n}",
            category=("animal", "doc")[n // 6],
            generator=None if n % 2 else "adm",
            references=[ANSWER, "A second\nreference."],
        )
        for n in reversed(range(count))
    ]


def _ffpp() -> list[Record]:
    methods = [(None, *MANIPULATIONS)[n % 3] for n in range(12)]
    return [
        Record(f"ff++/{n}.png", _image(n), int(not method), "ff++", f"{n // 3}", "deepfake", method, "test")
        for n, method in enumerate(methods)
    ]


def _ddvqa() -> list[Record]:
    questions = ("Does the image looks real/fake?", "Does the person's nose look real/fake?")
    return [
        Record(
            f"ff++/{n // 2}.png#{n % 2}", _image(n // 2), n // 2 % 2, "ddvqa", f"{n // 2}", "deepfake",
            question=questions[n % 2], references=["The image looks fake."],
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
    write_records(_fakeclue(), project / "artifacts/annotate/fakeclue/test")
    write_records(_ffpp(), project / "artifacts/collect/benchmarks/ffpp")
    write_records(_ddvqa(), project / "artifacts/collect/benchmarks/ddvqa")
    write_records([], project / "artifacts/collect/benchmarks/loki")
    halo = [Artifact("halo", (0.1, 0.1, 0.5, 0.5), 0.9)]
    write_ground_truth(
        [GroundTruth(r.id, r.label, "animal", halo if r.label == 0 else []) for r in _fakeclue()],
        project / "artifacts/collect/truth.jsonl",
    )
    for place in ("finetune/head/model", "experts/cnnspot"):
        (project / "artifacts" / place).mkdir(parents=True)
        (project / "artifacts" / place / "config.json").write_text("{}")
    sizes = {"batch_size": 5, "max_new_tokens": 6, "bootstrap": 50, "model": str(weights / "tuned")}
    params = load_params("mini").model_copy(update={"base": str(weights / "base")})
    return _changed(params, methods=["FakeVLM", "LLaVA (untuned)", "CNNSpot"], **sizes)


def _changed(params: Params, **changes) -> Params:
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update=changes)})


def _dark(images: list[Image.Image]) -> np.ndarray:
    """P(fake) by one who takes dark images for fake."""
    return np.array([1 - np.asarray(image).mean() / 255 for image in images])


class Dark:
    predict = staticmethod(_dark)


REAL_DETECTORS = methods._load


@pytest.fixture(autouse=True)
def detector(monkeypatch) -> None:
    monkeypatch.setattr(methods, "_load", lambda method, folder, precision: Dark)


def _bytes(project: Path, benchmark: str) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in (project / "artifacts/evaluate" / benchmark).iterdir()}


@pytest.mark.slow  # loads the sentence encoder
def test_evaluates_every_method_and_writes_all_files(params: Params, project: Path) -> None:
    predictions, scores = benchmarks.evaluate(params, "fakeclue")
    out = project / "artifacts/evaluate/fakeclue"
    assert set(_bytes(project, "fakeclue")) == {"metrics.json", "predictions.parquet", "scores.csv"}
    stored = pd.read_parquet(out / "predictions.parquet")
    pd.testing.assert_frame_equal(stored, predictions)
    assert stored[["method", "id"]].apply(tuple, axis=1).is_monotonic_increasing
    methods = {name: frame.reset_index() for name, frame in stored.groupby("method")}
    assert {name: len(frame) for name, frame in methods.items()} == {
        "CNNSpot": 12, "FakeVLM": 12, "LLaVA (untuned)": 12,
    }  # fmt: skip
    assert methods["CNNSpot"]["text"].isna().all()
    assert methods["FakeVLM"]["text"].notna().all()
    assert set(stored["reference"]) == {f"{ANSWER}\nA second reference."}
    assert (methods["FakeVLM"]["p_fake"] != methods["LLaVA (untuned)"]["p_fake"]).any()
    table = pd.read_csv(out / "scores.csv")
    assert list(table.columns) == COLUMNS
    assert len(table) == len(scores)
    values = table[table["subset"] == "all"].pivot(index="method", columns="metric", values="value")
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"acc", "f1_real", "f1_fake", "f1_macro", "auc", "unparsed", "rouge_l", "css"} <= set(metrics)
    assert metrics == pytest.approx(values.loc["FakeVLM"].dropna().to_dict(), abs=1e-6)
    expert, frame = values.loc["CNNSpot"], methods["CNNSpot"]
    assert expert["auc"] == pytest.approx(roc_auc_score(frame["label"] == 0, frame["p_fake"]), abs=1e-6)
    assert expert["acc"] == pytest.approx(((frame["p_fake"] < 0.5) == (frame["label"] == 1)).mean(), abs=1e-6)


def test_a_second_run_writes_the_same_bytes_without_the_first_ones_cache(
    params: Params, project: Path
) -> None:
    benchmarks.evaluate(params, "ffpp")
    first = _bytes(project, "ffpp")
    assert (paths.work() / "cache.sqlite").is_file(), "what follows in the notebook may fail"
    shutil.rmtree(paths.work())
    benchmarks.evaluate(params, "ffpp")
    assert _bytes(project, "ffpp") == first


def _questions(monkeypatch, dies_at: int | None = None) -> list[list[str | None]]:
    """The questions of each batch that a LLaVA answers."""
    batches: list[list[str | None]] = []
    plain = generate.Llava.__call__

    def call(self, prepared):
        batches.append([example.question for example in prepared[0]])
        if len(batches) == dies_at:
            raise KeyboardInterrupt
        return plain(self, prepared)

    monkeypatch.setattr(generate.Llava, "__call__", call)
    return batches


def test_killed_between_batches_it_asks_nothing_twice(params: Params, project: Path, monkeypatch) -> None:
    batches = _questions(monkeypatch, dies_at=5)  # the second batch of the second model
    with pytest.raises(KeyboardInterrupt):
        benchmarks.evaluate(params, "fakeclue")
    assert not (project / "artifacts/evaluate").exists()
    benchmarks.evaluate(params, "fakeclue")
    resumed = _bytes(project, "fakeclue")
    assert len(batches) == 7  # 2 models × 3 batches, one of them begun twice
    benchmarks.evaluate(params, "fakeclue")
    assert _bytes(project, "fakeclue") == resumed


def test_auc_of_each_manipulation_is_against_all_real_frames(params: Params) -> None:
    predictions, scores = benchmarks.evaluate(params, "ffpp")
    expert = predictions[predictions["method"] == "CNNSpot"]
    for manipulation in MANIPULATIONS:
        rows = expert[(expert["generator"] == manipulation) | (expert["label"] == 1)]
        row = scores.query(
            "method == 'CNNSpot' and metric == 'auc' and subset == @subset",
            local_dict={"subset": f"generator={manipulation}"},
        )
        assert row["value"].item() == pytest.approx(roc_auc_score(rows["label"] == 0, rows["p_fake"]))
        assert row["n"].item() == len(rows) == 8


def test_ddvqa_asks_each_record_its_own_question(params: Params, monkeypatch) -> None:
    batches = _questions(monkeypatch)
    predictions, scores = benchmarks.evaluate(params, "ddvqa")
    questions = [question for batch in batches for question in batch]
    assert sorted(questions) == sorted(2 * [record.question for record in _ddvqa()])
    assert set(predictions["question"]) == set(questions)
    n = scores[(scores["method"] == "FakeVLM") & (scores["subset"] == "all")].set_index("metric")["n"]
    assert (n["acc"], n["rouge_l"]) == (4, 8)


def test_a_benchmark_that_the_profile_leaves_out_gives_empty_files(params: Params, project: Path) -> None:
    predictions, scores = benchmarks.evaluate(params, "loki")
    assert len(predictions) == len(scores) == 0
    assert list(pd.read_csv(project / "artifacts/evaluate/loki/scores.csv").columns) == COLUMNS
    assert (
        list(pd.read_parquet(project / "artifacts/evaluate/loki/predictions.parquet").columns)
        == benchmarks.SCHEMA.names
    )


def test_sample_keeps_questions_together_and_grows_with_the_limit() -> None:
    records = _ddvqa()
    drawn = [benchmarks.sample(records, limit, seed=1) for limit in (1, 2, 3)]
    assert [len(d) for d in drawn] == [2, 4, 6]
    ids = [[r.id for r in d] for d in drawn]
    assert set(ids[0]) < set(ids[1]) < set(ids[2])
    assert ids[2] == [r.id for r in records if r.id in ids[2]]
    assert benchmarks.sample(records, None, 1) == benchmarks.sample(records, 4, 1) == records
    assert {tuple(r.id for r in benchmarks.sample(records, 1, seed)) for seed in range(20)} != {tuple(ids[0])}


def test_limit_is_a_parameter(params: Params) -> None:
    params = _changed(params, methods=["CNNSpot"], limit=5)
    assert len(benchmarks.evaluate(params, "fakeclue")[0]) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "dvc repro finetune@explanation"),
        ({"methods": ["FakeVLM", "UnivFD"]}, "dvc repro experts"),
        ({"model": "no/such-folder/at-all"}, "no/such-folder/at-all"),
    ],
)
def test_what_is_missing_is_named_before_anything_runs(
    params: Params, project: Path, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        benchmarks.evaluate(_changed(params, **changes), "fakeclue")
    assert not (project / "artifacts/evaluate").exists()


def test_unknown_benchmarks_are_refused(params: Params) -> None:
    with pytest.raises(UserError, match="choose one of: fakeclue, loki"):
        benchmarks.evaluate(params, "imagenet")


def test_detectors_see_each_image_once() -> None:
    shown = []

    class Counting:
        def predict(self, images: list[Image.Image]) -> np.ndarray:
            shown.extend(images)
            return _dark(images)

    columns = detectors.detector("test", Counting, ["test"], load_params("mini"))(_ddvqa(), None)
    assert len(shown) == 4
    assert columns["p_fake"] == pytest.approx(_dark([r.pil() for r in _ddvqa()]), abs=1e-6)


@pytest.mark.slow
def test_the_linear_head_and_an_expert_answer_as_they_do_by_themselves(
    params: Params, project: Path, weights: Path, monkeypatch
) -> None:
    monkeypatch.setattr(methods, "_load", REAL_DETECTORS)
    head = project / "artifacts/finetune/head/model"
    torch.manual_seed(0)
    model = load_model(weights / "base", kind=LlavaForVerdict, new=("score.weight", "score.bias"))
    model.save_pretrained(head)
    load_processor(weights / "base").save_pretrained(head)
    records = _fakeclue()
    train_experts(params, records, records, project / "artifacts/experts", ["frequency"])
    images = [record.pil() for record in records]
    expected = {
        "LLaVA + Linear Head": load_head(head).predict(images),
        "Frequency": load_expert(project / "artifacts/experts/frequency").predict(images),
    }
    for method, values in expected.items():
        answers = methods.method(method, params)(records, None)
        assert answers["p_fake"] == pytest.approx(values, abs=1e-5)
        assert np.ptp(answers["p_fake"]) > 0
        assert (answers["verdict"] == np.where(answers["p_fake"] >= 0.5, "fake", "real")).all()

"""The lmms-eval task folder: its YAML as lmms-eval reads it, its functions on made-up documents, its data as `datasets` loads it.

lmms-eval itself is not installed here; the keys are those of its `TaskConfig` (lmms_eval/api/task.py, August
2026). How it is run for real, and its answers held against ours: integrations/lmms_eval/compare.py.
"""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import f1_score

import tinyllava
from conftest import ROOT
from fakevlm.data.records import QUESTION, read_records, to_fakeclue_row, write_records
from fakevlm.errors import UserError
from fakevlm.model.sentence_encoder import encode

FOLDER = ROOT / "integrations/lmms_eval/fakeclue"
TASKS = ("fakeclue", "fakeclue_released")
KEYS = {
    "include", "task", "task_alias", "tag", "group", "dataset_path", "dataset_name", "dataset_kwargs", "training_split",
    "validation_split", "test_split", "fewshot_split", "full_docs", "process_results_use_image", "process_docs",
    "doc_to_visual", "doc_to_text", "doc_to_target", "doc_to_choice", "doc_to_messages", "process_results", "description",
    "target_delimiter", "fewshot_delimiter", "num_fewshot", "metric_list", "output_type", "generation_kwargs", "repeats",
    "filter_list", "cluster_key", "score_key", "metadata", "lmms_eval_specific_kwargs", "model_specific_generation_kwargs",
    "model_specific_target_kwargs", "reasoning_tags", "auto_strip_thinking",
}  # fmt: skip


def _module(name: str, folder: Path = FOLDER) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fakeclue_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


utils, convert = _module("utils"), _module("convert")


class Loader(yaml.SafeLoader):
    """`!function utils.name` becomes the function, as in lmms-eval."""


Loader.add_constructor(
    "!function", lambda loader, node: getattr(utils, loader.construct_scalar(node).removeprefix("utils."))
)


def load(task: str) -> dict[str, Any]:
    """A task file over the one that it includes."""
    own = yaml.load((FOLDER / f"{task}.yaml").read_text(), Loader)
    return yaml.load((FOLDER / own["include"]).read_text(), Loader) | own


def doc(label: int, references: list[str] | None = None, question: str | None = None) -> dict[str, Any]:
    answer = tinyllava.ANSWERS[label]
    return {
        "id": "genimage/1.png", "item": "1", "category": "animal", "label": label, "question": question,
        "references": [answer] if references is None else references,
    }  # fmt: skip


ANSWERED = [
    (doc(0), "This is a fake image. Texture: waxy."),
    (doc(0), "This unrealistic image is fake."),
    (doc(0), "This is a real image."),
    (doc(1), "This is a real image. Texture: fine grain."),
    (doc(1), "Nothing odd here."),
    (doc(1, question="Is this image real?"), "Yes."),
    (doc(1, references=[]), "It is fake."),
]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_only_keys_that_lmms_eval_knows(task: str) -> None:
    loaded = load(task)
    assert set(loaded) <= KEYS
    assert loaded["task"] == task
    assert loaded["output_type"] == "generate_until"
    assert loaded["test_split"] in loaded["dataset_kwargs"]["data_files"]
    assert all(callable(loaded[key]) for key in loaded if key.startswith("doc_to_"))
    for metric in loaded["metric_list"]:
        assert set(metric) == {"metric", "aggregation", "higher_is_better"}


def test_the_file_that_both_include_is_no_task_itself() -> None:
    assert {f.name for f in FOLDER.glob("*.yaml")} == {f"{task}.yaml" for task in TASKS}


def test_metrics_are_those_of_the_project() -> None:
    loaded = load("fakeclue")
    judged = [loaded["process_results"](document, [answer]) for document, answer in ANSWERED]
    names = [metric["metric"] for metric in loaded["metric_list"]]
    assert all(set(row) == set(names) for row in judged)
    json.dumps(judged)  # lmms-eval writes them to a file
    values = {
        metric["metric"]: metric["aggregation"]([row[metric["metric"]] for row in judged])
        for metric in loaded["metric_list"]
        if metric["metric"] != "fakeclue_css"  # below: it loads the sentence encoder
    }
    truth, said = [0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, -1, 1, 0]
    for positive, name in enumerate(("fake", "real")):
        expected = f1_score(np.array(truth) == positive, np.array(said) == positive)
        assert values[f"fakeclue_f1_{name}"] == pytest.approx(expected)
    assert values["fakeclue_f1_macro"] == pytest.approx(
        (values["fakeclue_f1_real"] + values["fakeclue_f1_fake"]) / 2
    )
    assert values["fakeclue_acc"] == pytest.approx(4 / 7)
    assert values["fakeclue_unparsed"] == pytest.approx(1 / 7)
    assert [row["fakeclue_acc"]["score"] for row in judged] == [1, 1, 0, 1, 0, 1, 0]
    assert 0 < values["fakeclue_rouge_l"] < 1


def test_rouge_l_counts_rows_that_have_a_reference() -> None:
    same, other, without = (
        utils.process_results(d, [a])["fakeclue_rouge_l"] for d, a in (ANSWERED[0], ANSWERED[4], ANSWERED[6])
    )
    assert utils.rouge_l([same]) == utils.rouge_l([same, without]) == 1.0
    assert utils.rouge_l([same, other]) == pytest.approx(0.5)  # no word in common
    assert math.isnan(utils.rouge_l([without]))


@pytest.mark.slow  # loads the sentence encoder
def test_css_is_the_cosine_of_answer_and_reference() -> None:
    rows = [utils.process_results(d, [a])["fakeclue_css"] for d, a in ANSWERED[:3]]
    vectors = encode([answer for _, answer in ANSWERED[:3]])
    assert utils.css(rows) == pytest.approx(float((vectors @ vectors[0]).mean()), abs=1e-5)


def test_questions_and_messages() -> None:
    image = Image.new("RGBA", (8, 8))
    assert utils.doc_to_text(doc(0)) == QUESTION
    around = {"pre_prompt": "<", "post_prompt": ">"}
    assert utils.doc_to_text(doc(0, question="Is it fake?"), around) == "<Is it fake?>"
    (message,) = utils.doc_to_messages({**doc(0), "image": image}, around)
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["image", "text"]
    assert message["content"][0]["url"].mode == "RGB"
    assert utils.doc_to_target(doc(1)) == tinyllava.ANSWERS[1]
    assert utils.doc_to_target(doc(1, references=[])) == ""


@pytest.mark.parametrize("task", TASKS)
def test_shards_load_as_the_task_says(task: str, tmp_path: Path, monkeypatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    loaded = load(task)
    records = tinyllava.records(5)
    pattern = loaded["dataset_kwargs"]["data_files"]["test"]
    write_records(records, tmp_path / Path(pattern).parent, shard_rows=2)
    found = datasets.load_dataset(
        loaded["dataset_path"], cache_dir=str(tmp_path / "cache"), **loaded["dataset_kwargs"]
    )
    found = found[loaded["test_split"]]
    assert isinstance(found.features["image"], datasets.Image), (
        "else lmms-eval would carry images into the scoring"
    )
    assert [row["label"] for row in found] == [record.label for record in records]
    (image,) = loaded["doc_to_visual"](found[3])
    assert np.array_equal(np.asarray(image), np.asarray(records[3].pil()))


def _release(folder: Path, rows: list[dict], images: dict[str, bytes]) -> Path:
    (folder / "data_json").mkdir(parents=True)
    (folder / "data_json/test.json").write_text(json.dumps(rows))
    for name, image in images.items():
        (folder / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "test" / name).write_bytes(image)
    return folder


def test_the_release_becomes_shards(tmp_path: Path) -> None:
    records = tinyllava.records(4)
    rows = [to_fakeclue_row(record, record.references[0]) for record in records]
    images = {record.id: record.image for record in records}
    assert convert.convert(_release(tmp_path / "whole", rows, images), tmp_path / "out") == 4
    found = list(read_records(tmp_path / "out"))
    assert [(r.id, r.image, r.label, r.references) for r in found] == [
        (r.id, r.image, r.label, r.references) for r in records
    ]
    del images[records[2].id]
    with pytest.raises(UserError, match=r"1 rows of .*made/0/2\.png"):
        convert.convert(_release(tmp_path / "part", rows, images), tmp_path / "out")


def test_its_answers_are_held_against_ours(tmp_path: Path) -> None:
    compare = _module("compare", FOLDER.parent)
    log = tmp_path / "samples.jsonl"
    answers = ["This is a fake image.", "This is a real image.", "It is a real image."]
    rows = [
        utils.process_results({**doc(n % 2), "id": str(n)}, [" " + answer])
        for n, answer in enumerate(answers)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ours = pd.DataFrame(
        {
            "id": ["0", "1", "3"],
            "text": [answers[0], answers[2], answers[2]],
            "verdict": ["fake", "real", "real"],
        }
    )
    counts = compare.compare(log, ours)
    assert list(counts.values()) == [3, 2, 1, 2]

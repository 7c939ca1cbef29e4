"""The lmms-eval task folder, without lmms-eval: its YAML, its functions, its data as `datasets` loads it."""

import json
import math
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import f1_score

import tinyllava
from conftest import ROOT, imported
from fakevlm.data.records import QUESTION, read_records, to_fakeclue_row, write_records
from fakevlm.errors import UserError
from fakevlm.model.sentence_encoder import encode
from smallcorpora import put

FOLDER = ROOT / "integrations/lmms_eval/fakeclue"
TASKS = ("fakeclue", "fakeclue_released")
utils, convert = (imported(FOLDER / f"{name}.py") for name in ("utils", "convert"))


class Loader(yaml.SafeLoader):
    """`!function utils.name` becomes the function, as in lmms-eval."""


Loader.add_constructor("!function", lambda _, node: getattr(utils, node.value.removeprefix("utils.")))


def load(task: str) -> dict[str, Any]:
    """A task file over the one that it includes."""
    changes = yaml.load((FOLDER / f"{task}.yaml").read_text(), Loader)
    return yaml.load((FOLDER / changes["include"]).read_text(), Loader) | changes


def doc(label: int, references: list[str] | None = None, question: str | None = None) -> dict[str, Any]:
    references = [tinyllava.ANSWERS[label]] if references is None else references
    document = {"id": "genimage/1.png", "group": "1", "category": "animal", "question": question}
    return document | {"label": label, "references": references}


# Document, answer, verdict (-1: none)
ANSWERED = [
    (doc(0), "This is a fake image. Texture: waxy.", 0),
    (doc(0), "This unrealistic image is fake.", 0),
    (doc(0), "This is a real image.", 1),
    (doc(1), "This is a real image. Texture: fine grain.", 1),
    (doc(1), "Nothing odd here.", -1),
    (doc(1, question="Is this image real?"), "Yes.", 1),
    (doc(1, references=[]), "It is fake.", 0),
]


@pytest.mark.slow  # loads the sentence encoder
def test_metrics_are_those_of_the_project() -> None:
    assert {f.stem for f in FOLDER.glob("*.yaml")} == set(TASKS), "the included file is no task itself"
    loaded = load("fakeclue")
    rows = [loaded["process_results"](document, [answer]) for document, answer, _ in ANSWERED]
    aggregations = {metric["metric"]: metric["aggregation"] for metric in loaded["metric_list"]}
    assert all(set(row) == set(aggregations) for row in rows)
    json.dumps(rows)  # lmms-eval writes them to a file
    values = {name: aggregate([row[name] for row in rows]) for name, aggregate in aggregations.items()}
    labels, judged = np.array([(document["label"], verdict) for document, _, verdict in ANSWERED]).T
    f1 = [f1_score(labels == positive, judged == positive) for positive in (0, 1)]
    expected = {"f1_fake": f1[0], "f1_real": f1[1], "f1_macro": sum(f1) / 2, "acc": 4 / 7, "unparsed": 1 / 7}
    assert {name: values[f"fakeclue_{name}"] for name in expected} == pytest.approx(expected)
    assert [row["fakeclue_acc"]["score"] for row in rows] == (labels == judged).astype(int).tolist()
    same, other, without = (rows[n]["fakeclue_rouge_l"] for n in (0, 4, 6))
    assert utils.rouge_l([same]) == utils.rouge_l([same, without]) == 1.0, "of rows that have a reference"
    assert utils.rouge_l([same, other]) == pytest.approx(0.5)  # no word in common
    assert math.isnan(utils.rouge_l([without]))
    vectors = encode([answer for _, answer, _ in ANSWERED[:3]])
    cosines = pytest.approx(float((vectors @ vectors[0]).mean()), abs=1e-5)
    assert utils.css([row["fakeclue_css"] for row in rows[:3]]) == cosines


def test_questions_and_messages() -> None:
    assert utils.doc_to_text(doc(0)) == QUESTION
    around = {"pre_prompt": "<", "post_prompt": ">"}
    assert utils.doc_to_text(doc(0, question="Is it fake?"), around) == "<Is it fake?>"
    (message,) = utils.doc_to_messages({**doc(0), "image": Image.new("RGBA", (8, 8))}, around)
    assert [part["type"] for part in message["content"]] == ["image", "text"]
    assert message["content"][0]["url"].mode == "RGB"
    assert utils.doc_to_target(doc(1)) == tinyllava.ANSWERS[1]
    assert utils.doc_to_target(doc(1, references=[])) == ""


@pytest.mark.parametrize("task", TASKS)
def test_shards_load_as_the_task_says(task: str, tmp_path: Path, monkeypatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    loaded, records = load(task), tinyllava.records(5)
    assert loaded["task"] == task
    options = loaded["dataset_kwargs"]
    write_records(records, (tmp_path / options["data_files"]["test"]).parent, shard_rows=2)
    tables = datasets.load_dataset(loaded["dataset_path"], cache_dir=str(tmp_path / "cache"), **options)
    rows = tables[loaded["test_split"]]
    assert isinstance(rows.features["image"], datasets.Image), "else images would be carried into the scoring"
    assert [row["label"] for row in rows] == [record.label for record in records]
    (image,) = loaded["doc_to_visual"](rows[3])
    assert np.array_equal(np.asarray(image), np.asarray(records[3].pil()))


def test_the_release_becomes_shards(tmp_path: Path) -> None:
    records = tinyllava.records(4)
    rows = [to_fakeclue_row(record, record.references[0]) for record in records]
    files = {f"test/{record.id}": record.image for record in records}
    put(tmp_path, {"data_json/test.json": json.dumps(rows)} | files)
    assert convert.convert(tmp_path, tmp_path / "out") == 4
    columns = operator.attrgetter("id", "image", "label", "references")
    assert list(map(columns, read_records(tmp_path / "out"))) == list(map(columns, records))
    (tmp_path / "test" / records[2].id).unlink()
    with pytest.raises(UserError, match=r"1 rows of .*made/0/2\.png"):
        convert.convert(tmp_path, tmp_path / "out")


def test_its_answers_are_compared_with_ours(tmp_path: Path) -> None:
    compare = imported(FOLDER.parent / "compare.py")
    answers = ["This is a fake image.", "This is a real image.", "It is a real image."]
    rows = [utils.process_results({**doc(n % 2), "id": str(n)}, [f" {a}"]) for n, a in enumerate(answers)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [answers[0], answers[2], answers[2]]
    ours = pd.DataFrame({"id": ["0", "1", "3"], "text": texts, "verdict": ["fake", "real", "real"]})
    assert list(compare.compare(tmp_path / "samples.jsonl", ours).values()) == [3, 2, 1, 2]

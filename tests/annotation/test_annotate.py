"""FakeClue built from a small world: the files, the images that are left out, and that aggregation pays."""

import operator
import shutil
from pathlib import Path

import pandas as pd
import pytest

from fakevlm.annotation.annotate import FakeClue
from fakevlm.annotation.dataset import compare_ids, pick
from fakevlm.annotation.splits import SPLITS
from fakevlm.cache import Cache
from fakevlm.config.params import load_params
from fakevlm.data.corpora import fakeclue as release
from fakevlm.data.records import FAKE, QUESTION, REAL, read_frame, read_records
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome
from fakevlm.tools.threshold import sweep
from miniworld.observers import OBSERVERS
from smallcorpora import put
from smallworld import Scripted, annotate, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), per_label=48, videos=8)


@pytest.fixture(scope="module")
def built(world: Path) -> tuple[FakeClue, Path]:
    return annotate(world, world / "annotate", Cache(None)), world / "annotate"


@pytest.mark.slow
def test_records_and_the_releases_json_say_the_same(built, world: Path, tmp_path: Path) -> None:
    fakeclue, out = built
    original = {record.id: record.image for record in read_records(world / "collect" / "records")}
    put(tmp_path, original)
    shutil.copytree(out / "data_json", tmp_path / "data_json")
    ids = []
    for split in SPLITS:
        records = list(read_records(out / "fakeclue" / split))
        ids += [record.id for record in records]
        assert len(records) == fakeclue.metrics["images"][split] > 0
        for record in records:
            assert (record.image, record.split) == (original[record.id], split)
            (answer,) = record.references
            assert answer.startswith(f"This is a {'real' if record.label == REAL else 'fake'} image. ")
    assert sorted(ids) == sorted(fakeclue.images["id"])
    assert QUESTION not in (out / "data_json" / "test.json").read_text(), "the release spells it otherwise"
    columns = operator.attrgetter("id", "image", "label", "category", "references")
    assert list(map(columns, release.read(tmp_path, splits=["test"]))) == list(map(columns, records))


@pytest.mark.slow
def test_the_aggregate_beats_every_annotator(built, world: Path) -> None:
    fakeclue, out = built
    quality = pd.read_csv(out / "clue_quality.csv").set_index("annotator")
    assert list(quality.index) == [*OBSERVERS, "aggregate"]
    assert quality.f1["aggregate"] > quality.f1.drop("aggregate").max() + 0.02
    assert fakeclue.metrics["clue_f1_aggregate"] == pytest.approx(quality.f1["aggregate"], abs=1e-5)
    spurious = quality["spurious_per_real"]
    assert spurious["aggregate"] <= spurious.drop("aggregate").min()
    assert len(pd.read_csv(out / "agreement.csv")) == 3
    assert 0.2 < fakeclue.metrics["agreement_jaccard"] < 0.8

    params = load_params("mini")
    chosen = params.annotate.aggregator.similarity
    table = sweep(params, out, world / "collect" / "ground_truth.jsonl", [0.1, chosen, 0.5, 0.8])
    f1 = table.set_index("similarity")["f1"]
    assert f1[chosen] >= f1.max() - 0.02
    assert f1[0.8] < f1.max() - 0.05, "the threshold matters"


@pytest.mark.slow
def test_captions_are_complete_and_in_order(built) -> None:
    fakeclue, out = built
    table = pd.read_parquet(out / "candidates.parquet")
    keys = list(zip(table["id"], table["annotator"], strict=True))
    assert keys == [(key, name) for key in fakeclue.images["id"] for name in OBSERVERS]
    for label in (FAKE, REAL):
        record, captions = pick(fakeclue, out, label)
        assert (record.label, len(captions)) == (label, 3)
        assert record.references[0].count(": ") >= 2


@pytest.mark.slow
def test_prompts_by_label_and_tag_and_images_without_caption_are_left_out(world, tmp_path) -> None:
    prompts = {}

    class Watching(Scripted):
        async def annotate(self, request):
            prompts[request.id] = request.prompt
            return self.answers.get(request.id, Outcome("ok", "the surface is waxy"))

    silent = {"genimage/real/000.jpg": Outcome("refused"), "chameleon/fake/0.jpg": Outcome("empty")}
    annotators = [Watching("a", silent), Watching("b", silent)]
    fakeclue = annotate(world, tmp_path, Cache(None), annotators, balance=False)
    records = read_frame(world / "collect" / "records", ["id", "label"]).set_index("id")
    assert {key: prompt.label for key, prompt in prompts.items()} == records["label"].to_dict()
    assert {key for key, prompt in prompts.items() if prompt.tagged} == {"chameleon/fake/0.jpg"}
    assert set(records.index) - set(fakeclue.images["id"]) == set(silent)
    assert fakeclue.metrics["left_out_without_caption"] == 2
    assert fakeclue.metrics["outcomes"] == {"empty": 2, "ok": 2 * len(records) - 4, "refused": 2}


def test_ids_unlike_those_listed_are_named(built, tmp_path: Path) -> None:
    listed, file = pd.read_csv(built[1] / "ids.csv"), tmp_path / "list.csv"
    listed.to_csv(file, index=False)
    assert f"are exactly the {len(listed)} of list.csv" in compare_ids(built[0].images, file, tmp_path)
    here = listed.drop(index=0)
    here.loc[1, "split"] = "none"
    message = compare_ids(here, file, tmp_path)
    assert "2 are missing, new or in another split" in message
    rows = pd.read_csv(tmp_path / "differing_ids.csv").set_index("id").loc[listed.id[:2]]
    assert rows.to_numpy().tolist() == [[listed.split[0], "absent"], [listed.split[1], "none"]]
    assert f"{listed.id[0]} ({listed.split[0]} → absent)" in message


def test_a_missing_stage_is_named(world: Path, tmp_path: Path) -> None:
    (tmp_path / "collect").symlink_to(world / "collect")
    with pytest.raises(UserError, match="dvc repro categorize"):
        annotate(tmp_path, tmp_path / "out", Cache(None))

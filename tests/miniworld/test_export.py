"""The miniature on disk: the readers of the real corpora read it, its truth fits, and its bytes repeat."""

import re
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from fakevlm.categorize.synsets import generated_category, nature_category, table
from fakevlm.collection.amounts import READERS
from fakevlm.data.clues import KINDS, SEEN_KINDS, kinds_named
from fakevlm.data.corpora import ffpp, genimage, m6doc
from fakevlm.data.corpora.files import BadImage, decoded
from fakevlm.data.ground_truth import Artifact, GroundTruth, read_ground_truth
from fakevlm.data.records import FAKE, REAL, Record
from miniworld import export, export_words, world
from miniworld.export import PLAN
from smallworld import content

COUNTS = {"genimage": 64, "chameleon": 28, "cvusa": 5, "vigor": 4, "m6doc": 10}
NUMBERS = COUNTS | {"videos": 8, "loki": 10, "dmimage_fakes": 1, "dmimage_reals": 2, "copies": 2}
BROKEN = ["fake/adm/416_adm_45.JPEG", "real/glide/n02099601_503.JPEG", "real/wukong/n02099601_404.JPEG"]
BROKEN = [f"genimage/{name}" for name in BROKEN]
Records = dict[str, list[Record]]
Truth = dict[str, GroundTruth]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded")
    export.export(out, 17, NUMBERS)
    return out


@pytest.fixture(scope="module")
def records(exported: Path) -> Records:
    options = {"ffpp": [4], "ddvqa": [exported / "ffpp", 4]}
    return {n: list(READERS[n](exported / n, *options.get(n, []))) for n in export.CORPORA}


@pytest.fixture(scope="module")
def ground_truth(exported: Path) -> Truth:
    return read_ground_truth(exported / "truth.jsonl")


def test_the_readers_find_everything(records: Records) -> None:
    counts = {name: len(part) for name, part in records.items()}
    assert counts.pop("ddvqa") >= 2 * 5
    others = {"ffpp": 8 * 5 * 4, "loki": 70, "dmimage": len(PLAN["dmimage_fakes"]) + 6}
    assert counts == COUNTS | others | {"genimage": 64 + 2 + 3}  # copies and broken files
    assert {r.generator for r in records["genimage"] if r.label == FAKE} == set(genimage.GENERATORS)
    for name, part in records.items():
        heads = {r.image[:3] for r in part if r.image} - {b"<ht"}
        assert len(heads) == 1, f"{name}: real and fake share a format"


def test_labels_and_truth_agree(records: Records, ground_truth: Truth) -> None:
    every = {r.path: r for part in records.values() for r in part}
    copies = {path for path in every if "/biggan/n" in path}
    assert set(every) == {*ground_truth, *copies, *BROKEN}, "no truth without an image"
    for path, truth in ground_truth.items():
        assert truth.label == every[path].label
        assert every[path].category in (None, truth.category)
        assert truth.label == FAKE or not truth.artifacts


def test_broken_files_are_really_broken(records: Records) -> None:
    for record in records["genimage"]:
        with pytest.raises(BadImage) if record.id in BROKEN else nullcontext():
            decoded(record)
    assert len(records["genimage"]) - len({r.sha256 for r in records["genimage"]}) == 2


def test_file_names_state_the_class_of_what_they_show(records: Records, ground_truth: Truth) -> None:
    stated = Counter()
    for r in records["genimage"]:
        category = nature_category(r) or generated_category(r)
        if r.path in ground_truth and category:
            assert category == ground_truth[r.path].category, r.path
            stated[r.label] += 1
    assert min(stated[FAKE], stated[REAL]) > 20
    for classes in PLAN["classes"].values():
        assert all(table()[index]["synset"] == synset for index, synset in classes), "ImageNet's own"


def test_videos_survive_their_coding(records: Records) -> None:
    job = next(j for j in export.video_jobs(8, 17) if j.options["manipulation"] == "FaceSwap")
    shots = world.shoot_video(np.random.default_rng(job.seed), frames=4, **job.options)
    frames = [r for r in records["ffpp"] if f"FaceSwap/c23/frames/{Path(job.file).stem}/" in r.id]
    for shot, record in zip(shots, frames, strict=True):
        error = np.mean((np.asarray(record.pil(), float) - shot.pixels) ** 2)
        assert 10 * np.log10(255**2 / error) > 25  # dB: "c23" is lossy but good


def test_pairs_share_a_split_and_both_videos_exist(exported: Path, records: Records) -> None:
    splits = ffpp.read_splits(exported / "ffpp")
    assert len(splits) == 8
    assert set(splits.values()) == {"train", "val", "test"}
    for r in records["ffpp"]:
        if r.label == FAKE:
            target, source = r.id.split("/")[5].split("_")
            assert splits[target] == splits[source] == r.split


def test_m6doc_annotations_give_the_layout_back(exported: Path) -> None:
    page = next(m6doc.pages(exported / "m6doc"))
    job = next(j for j in export.m6doc_jobs(10, 17) if j.file.endswith(page.file.name))

    def rounded(blocks: list) -> list:
        return sorted((*np.round(block.box, 2).tolist(), block.kind) for block in blocks)

    for new, old in zip(rounded(page.layout), rounded(export.paint(job)[3]), strict=True):
        assert new[4] == old[4]
        assert new[:4] == pytest.approx(old[:4], abs=0.02)


def test_loki_is_utf16_and_described(exported: Path, records: Records, ground_truth: Truth) -> None:
    raw = (exported / "loki/data_json/image/open_ended_vqa.json").read_bytes()
    assert raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    described = [r for r in records["loki"] if r.references]
    assert len(described) > 20
    for r in described:
        assert r.label == FAKE
        assert kinds_named(r.references[0]) <= ground_truth[r.path].kinds
    assert {r.category for r in records["loki"]} == set(PLAN["loki_folders"].values())


def test_the_embedded_descriptions_are_those_that_the_code_writes(tmp_path: Path) -> None:
    truths = read_ground_truth(ROOT / "embedded/truth.jsonl")
    export._write_loki(tmp_path, [truth for path, truth in truths.items() if path.startswith("loki/")], 17)
    for file in tmp_path.rglob("*.json"):
        assert file.read_bytes() == (ROOT / "embedded" / file.relative_to(tmp_path)).read_bytes(), file.name


def test_training_corpora_show_no_unseen_kinds_and_loki_does(records: Records, ground_truth: Truth) -> None:
    def shown(name: str) -> set[str]:
        return {kind for r in records[name] if r.path in ground_truth for kind in ground_truth[r.path].kinds}

    assert shown("genimage") | shown("chameleon") | shown("ffpp") <= set(SEEN_KINDS)
    assert shown("loki") - set(SEEN_KINDS)
    assert {kind for entry in PLAN["generators"].values() for kind in entry["kinds"]} == set(SEEN_KINDS)


def test_ddvqa_answers(records: Records) -> None:
    for r in records["ddvqa"]:
        word = "real" if r.label == REAL else "fake"
        assert r.references
        for answer in r.references:
            assert re.match(rf"(The image looks|The person's \w+ looks?) {word}\. ", answer), answer
        assert not r.id.endswith("#0") or r.question == "Does the image looks real/fake?"
    real = Counter(r.question for r in records["ddvqa"] if r.label == REAL)
    assert len(real) == 6
    assert len(set(real.values())) == 1, "the whole image and five parts"


def test_people_use_other_words_than_the_lexicon_and_name_one_kind() -> None:
    for kind, phrases in export_words.PHRASES.items():
        assert len(set(phrases)) >= 2
        assert not set(phrases) & set(KINDS[kind].phrases)
        named = [kinds_named(phrase.format(s="the face")) for phrase in phrases]
        assert {kind} in named
        assert all(kinds <= {kind} for kinds in named)
    assert set(export_words.PHRASES) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "y0", "y1", "parts"),
    [
        ("asymmetry", 0.1, 0.9, ["eyes"]), ("misaligned", 0.62, 0.72, ["mouth"]),
        ("smooth", 0.62, 0.72, ["skin", "mouth"]), ("halo", 0.1, 0.95, ["skin"]),
    ],
)  # fmt: skip
def test_parts_of_the_face(kind: str, y0: float, y1: float, parts: list[str]) -> None:
    assert export_words.parts_touched(Artifact(kind, (0.3, y0, 0.7, y1), 1.0)) == parts


@pytest.mark.slow
def test_the_export_repeats_byte_for_byte_with_more_processes(exported: Path, tmp_path: Path) -> None:
    for name in ("base/model.safetensors", "genimage/ADM/train/ai/stale.JPEG"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"old")
    export.export(tmp_path, 17, NUMBERS, workers=2)
    assert content(tmp_path) == content(exported) | {"base/model.safetensors": b"old"}


def test_an_image_does_not_depend_on_how_many_are_drawn(exported: Path) -> None:
    few = list(export.genimage_jobs(16, 17))
    assert list(export.genimage_jobs(64, 17))[:16] == few
    file, data, *_ = export.paint(few[5])
    assert (exported / file).read_bytes() == data
    assert export.paint(next(export.genimage_jobs(16, 18)))[1] != export.paint(few[0])[1]

"""The miniature on disk.

Read by the readers of the real corpora, its truth fits, its words are people's, its bytes repeat.
"""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fakevlm.data.clues import KINDS, SEEN_KINDS, kinds_named
from fakevlm.data.corpora import chameleon, cvusa, ddvqa, dmimage, ffpp, genimage, loki, m6doc, vigor
from fakevlm.data.corpora.files import BadImage, decoded
from fakevlm.data.ground_truth import Artifact, GroundTruth, read_ground_truth
from fakevlm.data.page_layout import layout_from_coco
from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError
from miniworld import export, export_plan, export_words
from miniworld.export_plan import PLAN, Sizes

COUNTS = {"genimage": 64, "chameleon": 28, "cvusa": 5, "vigor": 4, "m6doc": 10}
SIZES = Sizes(**COUNTS, videos=8, loki=10, dmimage_fakes=1, dmimage_reals=2, copies=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded")
    export.export(out, 17, SIZES)
    return out


@pytest.fixture(scope="module")
def records(made: Path) -> dict[str, list]:
    readers = (genimage, chameleon, cvusa, vigor, m6doc, loki, dmimage)
    names = [reader.__name__.split(".")[-1] for reader in readers]
    found = {name: list(reader.read(made / name)) for name, reader in zip(names, readers, strict=True)}
    found["ffpp"] = list(ffpp.read(made / "ffpp", 4))
    return found | {"ddvqa": list(ddvqa.read(made / "ddvqa", made / "ffpp", 4))}


@pytest.fixture(scope="module")
def ground_truth(made: Path) -> dict[str, GroundTruth]:
    return read_ground_truth(made / "truth.jsonl")


def test_the_readers_find_everything(records: dict[str, list]) -> None:
    counts = {name: len(found) for name, found in records.items()}
    assert counts["genimage"] == 64 + 2 + 3  # copies and broken files
    assert counts["chameleon"] == 28
    assert (counts["cvusa"], counts["vigor"], counts["m6doc"]) == (5, 4, 10)
    assert counts["ffpp"] == 8 * 5 * 4
    assert counts["loki"] == 70
    assert counts["dmimage"] == len(PLAN["dmimage_fakes"]) + 6
    assert counts["ddvqa"] >= 2 * 5
    assert {r.generator for r in records["genimage"] if r.label == FAKE} == set(genimage.GENERATORS)


def test_labels_and_truth_agree(records: dict[str, list], ground_truth: dict[str, GroundTruth]) -> None:
    unknown = [r.path for found in records.values() for r in found if r.path not in ground_truth]
    broken = ["genimage/fake/adm/416_adm_45.JPEG", "genimage/real/glide/n02099601_503.JPEG"]
    assert [p for p in unknown if p not in broken and "/biggan/n" not in p] == [
        "genimage/real/wukong/n02099601_404.JPEG"
    ]
    for found in records.values():
        for r in found:
            if r.path in ground_truth:
                assert ground_truth[r.path].label == r.label, r.path
                assert r.category in (None, ground_truth[r.path].category)
                assert ground_truth[r.path].label == FAKE or not ground_truth[r.path].artifacts
    known = {r.path for found in records.values() for r in found}
    assert set(ground_truth) <= known, "no truth without an image"


def test_broken_files_are_really_broken(records: dict[str, list]) -> None:
    bad = []
    for r in records["genimage"]:
        try:
            decoded(r)
        except BadImage:
            bad.append(r.id)
    assert sorted(bad) == [
        "genimage/fake/adm/416_adm_45.JPEG",
        "genimage/real/glide/n02099601_503.JPEG",
        "genimage/real/wukong/n02099601_404.JPEG",
    ]
    hashes = Counter(r.sha256 for r in records["genimage"])
    assert sum(n - 1 for n in hashes.values()) == 2


def test_file_names_state_the_class_of_what_they_show(
    records: dict[str, list], ground_truth: dict[str, GroundTruth]
) -> None:
    from fakevlm.categorize.synsets import generated_category, nature_category

    stated = Counter()
    for r in records["genimage"]:
        category = nature_category(r) or generated_category(r)
        if r.path in ground_truth and category:
            assert category == ground_truth[r.path].category, r.path
            stated[r.label] += 1
    assert min(stated[FAKE], stated[REAL]) > 20


def test_classes_are_imagenets() -> None:
    from fakevlm.categorize.synsets import table

    for classes in PLAN["classes"].values():
        for index, synset in classes:
            assert table()[index]["synset"] == synset


def test_real_and_fake_share_format_and_size(records: dict[str, list]) -> None:
    for name, found in records.items():
        kinds = {
            label: {r.image[:3] for r in found if r.label == label and r.image} for label in (FAKE, REAL)
        }
        if name == "genimage":
            kinds[REAL].discard(b"<ht")
        assert len(kinds[FAKE] | kinds[REAL]) == 1, name


def test_videos_survive_their_coding(made: Path) -> None:
    from miniworld import export_faces, world

    job = next(j for j in export_faces.video_jobs(8, 4, 17) if j.method == "FaceSwap")
    shots = world.shoot_video(np.random.default_rng(job.seed), frames=4, manipulation=job.method)
    decoded = [r for r in ffpp.read(made / "ffpp", 4) if f"FaceSwap/c23/frames/{job.video}/" in r.id]
    assert len(decoded) == 4
    for shot, record in zip(shots, decoded, strict=True):
        error = np.mean((np.asarray(record.pil(), float) - shot.pixels) ** 2)
        assert 10 * np.log10(255**2 / error) > 25  # dB: "c23" is lossy but good


def test_pairs_share_a_split_and_both_videos_exist(made: Path, records: dict[str, list]) -> None:
    splits = ffpp.read_splits(made / "ffpp")
    assert len(splits) == 8
    assert set(splits.values()) == {"train", "val", "test"}
    for r in records["ffpp"]:
        if r.label == FAKE:
            target, source = r.id.split("/")[5].split("_")
            assert splits[target] == splits[source] == r.split
    full = Counter(
        split for split, pairs in export.export_faces.pairs(80, 17).items() for _ in pairs for _ in range(2)
    )
    assert full == {"train": 56, "val": 12, "test": 12}


def test_m6doc_annotations_give_the_layout_back(made: Path) -> None:
    coco = json.loads((made / "m6doc/annotations/instances_train2017.json").read_text())
    first = coco["images"][0]
    annotations = [a for a in coco["annotations"] if a["image_id"] == first["id"]]
    layout = layout_from_coco(annotations, coco["categories"], 96, 96)
    job = next(j for j in export_plan.m6doc_jobs(10, 17) if j.file.endswith(first["file_name"]))
    original = export.paint(job)[3]
    key = lambda b: (round(b.box[1], 2), round(b.box[0], 2), b.kind)  # noqa: E731
    assert [b.kind for b in sorted(layout, key=key)] == [b.kind for b in sorted(original, key=key)]
    for a, b in zip(sorted(layout, key=key), sorted(original, key=key), strict=True):
        assert a.box == pytest.approx(b.box, abs=0.01)


def test_loki_is_utf16_and_described(
    made: Path, records: dict[str, list], ground_truth: dict[str, GroundTruth]
) -> None:
    raw = (made / "loki/data_json/image/open_ended_vqa.json").read_bytes()
    assert raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    described = [r for r in records["loki"] if r.references]
    assert len(described) > 20
    assert all(r.label == FAKE for r in described)
    for r in described:
        named = kinds_named(r.references[0])
        assert named <= ground_truth[r.path].kinds
    categories = {"animal", "doc", "medicine", "object", "human", "satellite", "scene"}
    assert {r.category for r in records["loki"]} == categories
    shown = {kind for r in records["loki"] for kind in ground_truth[r.path].kinds}
    assert shown & {name for name, kind in KINDS.items() if kind.unseen}


def test_training_corpora_show_seen_kinds_only(
    records: dict[str, list], ground_truth: dict[str, GroundTruth]
) -> None:
    for name in ("genimage", "chameleon", "ffpp"):
        shown = {kind for r in records[name] if r.path in ground_truth for kind in ground_truth[r.path].kinds}
        assert shown <= set(SEEN_KINDS)
    assert {kind for made_by in PLAN["generators"].values() for kind in made_by["kinds"]} == set(SEEN_KINDS)


def test_ddvqa_answers(records: dict[str, list]) -> None:
    for r in records["ddvqa"]:
        word = "real" if r.label == REAL else "fake"
        assert r.references
        for answer in r.references:
            assert re.match(rf"(The image looks|The person's \w+ looks?) {word}\. ", answer), answer
    overall = [r for r in records["ddvqa"] if r.id.endswith("#0")]
    assert all(r.question == "Does the image looks real/fake?" for r in overall)
    real = [r for r in records["ddvqa"] if r.label == REAL]
    assert Counter(r.question for r in real).most_common()[-1][1] == len(real) / 6


def test_people_use_other_words_than_the_catalogue_and_name_one_kind() -> None:
    assert set(export_words.PHRASES) == set(KINDS)
    for kind, phrases in export_words.PHRASES.items():
        assert len(set(phrases)) >= 2
        assert not set(phrases) & set(KINDS[kind].phrases)
        for phrase in phrases:
            assert kinds_named(phrase.format(s="the face")) <= {kind}, phrase
        assert any(kinds_named(p.format(s="the face")) == {kind} for p in phrases), kind


def test_parts_of_the_face() -> None:
    def at(kind: str, y0: float, y1: float) -> list[str]:
        return export_words.concerned(Artifact(kind, (0.3, y0, 0.7, y1), 1.0))

    assert at("asymmetry", 0.1, 0.9) == ["eyes"]
    assert at("misaligned", 0.62, 0.72) == ["mouth"]
    assert at("smooth", 0.62, 0.72) == ["skin", "mouth"]
    assert at("halo", 0.1, 0.95) == ["skin"]


@pytest.mark.slow
def test_the_export_repeats_byte_for_byte_with_more_processes(made: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/model.safetensors").write_bytes(b"keep")
    (tmp_path / "genimage/ADM/train/ai").mkdir(parents=True)
    (tmp_path / "genimage/ADM/train/ai/old.JPEG").write_bytes(b"stale")
    export.export(tmp_path, 17, SIZES, workers=2)
    old, new = (
        {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        for root in (made, tmp_path)
    )
    assert new.pop("base/model.safetensors") == b"keep"
    assert old == new


def test_an_image_does_not_depend_on_how_many_are_made(made: Path, tmp_path: Path) -> None:
    few = list(export_plan.genimage_jobs(16, 17))
    many = list(export_plan.genimage_jobs(64, 17))
    assert many[:16] == few
    file, data, *_ = export.paint(few[5])
    assert (made / file).read_bytes() == data
    assert export.paint(next(iter(export_plan.genimage_jobs(16, 18))))[1] != export.paint(few[0])[1]


def test_videos_come_in_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not make pairs"):
        export.export(tmp_path, sizes=Sizes(videos=7))

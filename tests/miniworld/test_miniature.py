"""The miniature: what is drawn; what lies on disk: read as the real corpora are, with a truth that fits."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from fakevlm.categorize.synsets import generated_category, nature_category, table
from fakevlm.collection.amounts import READERS
from fakevlm.data.clues import KINDS, SEEN_KINDS, kinds_named
from fakevlm.data.corpora.files import BadImage, decoded
from fakevlm.data.corpora.imagefolders import GENERATORS
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import CATEGORIES, FAKE, REAL, Record
from miniworld import export, export_words
from miniworld.export import PLAN
from miniworld.fitting import FITTING
from miniworld.pretraining.pool import PHRASES
from miniworld.world import shoot
from smallworld import content

COUNTS = {"genimage": 64, "chameleon": 28, "cvusa": 5, "vigor": 4, "m6doc": 10}
NUMBERS = COUNTS | {"videos": 8, "loki": 10, "dmimage_fakes": 1, "dmimage_reals": 2, "copies": 2}
BROKEN = ["genimage/fake/adm/416_adm_45.JPEG", "genimage/real/glide/n02099601_503.JPEG"]
BROKEN.append("genimage/real/wukong/n02099601_404.JPEG")
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
def ground_truths(exported: Path) -> Truth:
    return read_ground_truth(exported / "ground_truth.jsonl")


def test_the_readers_find_everything(records: Records) -> None:
    counts = {name: len(part) for name, part in records.items()}
    assert counts.pop("ddvqa") >= 2 * 5
    others = {"ffpp": 8 * 5 * 4, "loki": 70, "dmimage": len(PLAN["dmimage_fakes"]) + 6}
    assert counts == COUNTS | others | {"genimage": 64 + 2 + 3}  # copies and broken files
    assert {r.generator for r in records["genimage"] if r.label == FAKE} == set(GENERATORS)
    for name, part in records.items():
        heads = {r.image[:3] for r in part if r.image} - {b"<ht"}
        assert len(heads) == 1, f"{name}: real and fake share a format"
    for record in records["genimage"]:
        with pytest.raises(BadImage) if record.id in BROKEN else nullcontext():
            decoded(record)
    assert len(records["genimage"]) - len({r.sha256 for r in records["genimage"]}) == 2


def test_labels_and_truth_agree(records: Records, ground_truths: Truth) -> None:
    every = {r.path: r for part in records.values() for r in part}
    copies = {path for path in every if "/biggan/n" in path}
    assert set(every) == {*ground_truths, *copies, *BROKEN}, "no truth without an image"
    for path, ground_truth in ground_truths.items():
        assert ground_truth.label == every[path].label
        assert every[path].category in (None, ground_truth.category)
        assert ground_truth.label == FAKE or not ground_truth.artifacts

    def shown(name: str) -> set[str]:
        return {kind for r in records[name] for kind in getattr(ground_truths.get(r.path), "kinds", ())}

    assert shown("genimage") | shown("chameleon") | shown("ffpp") <= set(SEEN_KINDS)
    assert shown("loki") - set(SEEN_KINDS), "LOKI alone shows kinds that no training corpus shows"


def test_file_names_state_the_class_of_what_they_show(records: Records, ground_truths: Truth) -> None:
    for r in records["genimage"]:
        category = nature_category(r) or generated_category(r)
        if r.path in ground_truths and category:
            assert category == ground_truths[r.path].category, r.path
    for classes in PLAN["classes"].values():
        assert all(table()[index]["synset"] == synset for index, synset in classes), "ImageNet's own"


def test_loki_is_described(records: Records, ground_truths: Truth) -> None:
    described = [r for r in records["loki"] if r.references]
    assert len(described) > 20
    assert {r.label for r in described} == {FAKE}
    assert all(kinds_named(r.references[0]) <= ground_truths[r.path].kinds for r in described)
    assert {r.category for r in records["loki"]} == set(PLAN["loki_folders"].values())


def test_the_embedded_descriptions_are_those_that_the_code_writes(tmp_path: Path) -> None:
    ground_truths = read_ground_truth(ROOT / "embedded/ground_truth.jsonl")
    export._write_loki(tmp_path, [ground_truths[p] for p in ground_truths if p.startswith("loki/")], 17)
    for file in tmp_path.rglob("*.json"):
        assert file.read_bytes() == (ROOT / "embedded" / file.relative_to(tmp_path)).read_bytes(), file.name


def test_people_use_other_words_than_the_lexicon() -> None:
    for kind, phrases in export_words.PHRASES.items():
        assert len(set(phrases)) >= 2
        assert not set(phrases) & set(KINDS[kind].phrases)
    assert set(export_words.PHRASES) == set(PHRASES) == set(KINDS)


@pytest.mark.slow
def test_the_export_repeats_byte_for_byte_with_more_processes(exported: Path, tmp_path: Path) -> None:
    for name in ("base/model.safetensors", "genimage/ADM/train/ai/stale.JPEG"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"old")
    export.export(tmp_path, 17, NUMBERS, workers=2)
    assert content(tmp_path) == content(exported) | {"base/model.safetensors": b"old"}


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("category", CATEGORIES)
def test_real_images_carry_no_artifact_and_fakes_carry_those_asked_for(category: str):
    real = shoot(category, rng(1))
    assert (real.label, real.artifacts) == (REAL, [])
    assert "structure" in real.qualities
    for n in range(12):
        fake = shoot(category, rng(2, n), fake=True, count=(1, 3))
        assert (fake.label, fake.qualities) == (FAKE, [])
        assert 1 <= len(fake.artifacts) <= 3
        assert {artifact.kind for artifact in fake.artifacts} <= set(FITTING[category])
        for x0, y0, x1, y1 in (artifact.region for artifact in fake.artifacts):
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_made_wherever_it_fits(kind: str):
    for category in [c for c, kinds in FITTING.items() if kind in kinds] or CATEGORIES:
        shots = [shoot(category, rng(7, n), fake=True, kinds=[kind], count=(1, 1)) for n in range(6)]
        showing = [shot for shot in shots if any(a.kind == kind for a in shot.artifacts)]
        assert len(showing) >= 4, f"{kind} hardly ever shows on {category}"

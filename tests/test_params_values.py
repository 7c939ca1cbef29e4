"""Values of the right type that can never work are refused when params.yaml is loaded, not hours later by a stage."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from PIL import Image

from conftest import ROOT
from editedparams import edited, message
from fakevlm.config.annotation import Source
from fakevlm.config.params import Params, load_params
from fakevlm.data.corpora import chameleon, cvusa, ffpp, genimage, m6doc, vigor
from fakevlm.errors import UserError
from fakevlm.evaluation.robustness import KINDS, perturb
from fakevlm.synthesis.satellite import painted
from rehearse import changed, located


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", -1, "mini.seed: Input should be greater than or equal to 0, got -1"),
        ("seed", 2**32, "mini.seed: Input should be less than 4294967296"),
        ("robustness.crop", [0.9, 1.2], "mini.robustness.crop.1: Input should be less than or equal to 1, got 1.2"),
        ("robustness.crop", [0.0], "mini.robustness.crop.0: Input should be greater than or equal to 0.05, got 0.0"),
        ("robustness.resize", [0.0], "mini.robustness.resize.0: Input should be greater"),
        ("robustness.jpeg", [90, 200], "mini.robustness.jpeg.1: Input should be less than or equal to 100, got 200"),
        ("robustness.jpeg", [0], "mini.robustness.jpeg.0: Input should be greater"),
        ("robustness.blur", [-0.5], "mini.robustness.blur.0: Input should be greater"),
        ("robustness.noise", [-5], "mini.robustness.noise.0: Input should be greater"),
        ("annotate.min_annotators", 4, "mini.annotate: min_annotators 4 is more than the 3 annotators"),
        ("annotate.val_fraction", 0.83, "mini.annotate: val_fraction and test_fraction make 1: leave something"),
        ("annotate.tagged_sources", ["chamaeleon"], "mini.annotate.tagged_sources.0: Input should be 'genimage', 'ff++', "),
        ("categorize.heads", 5, "mini.categorize: width 96 must be a multiple of 4 × heads, which is 20"),
        ("categorize.heads", 48, "mini.categorize: width 96 must be a multiple of 4 × heads, which is 192"),
        ("categorize.image_size", 60, "mini.categorize: image_size 60 must be a multiple of patch_size 8"),
        ("experts.cnnspot.width", 4, "mini.experts.cnnspot.width: Input should be a multiple of 8, got 4"),
        ("experts.cnnspot.width", 12, "mini.experts.cnnspot.width: Input should be a multiple of 8, got 12"),
        ("collect.satellites.gan.width", 4, "mini.collect.satellites.gan.width: Input should be a multiple of 8, got 4"),
        ("collect.satellites.diffusion.widths", [32, 12], "mini.collect.satellites.diffusion.widths.1: Input should be a multiple"),
        ("categorize.width", 100, "mini.categorize.width: Input should be a multiple of 8, got 100"),
        ("experts.cnnspot.crop", 128, "mini.experts.cnnspot: crop 128 must be no larger than size 96"),
    ],
)  # fmt: skip
def test_what_can_never_work_is_refused_with_its_key(tmp_path: Path, key: str, value: Any, said: str) -> None:
    assert said in message(edited(tmp_path, f"mini.{key}", value), "mini")


def test_a_validation_split_leaves_something_of_the_release(tmp_path: Path) -> None:
    said = message(edited(tmp_path, "released.annotate.val_fraction", 1.0), "released")
    assert "released.annotate.val_fraction: Input should be less than 1" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 0),
        ("robustness.crop", [0.05, 1.0]),
        ("robustness.jpeg", [1, 100]),
        ("robustness.noise", [0, 255]),
        ("annotate.min_annotators", 3),
        ("annotate.val_fraction", 0.82),
        ("annotate.tagged_sources", []),
        ("categorize.heads", 24),
        ("experts.cnnspot.crop", 64),
    ],
)
def test_what_just_works_is_taken(tmp_path: Path, key: str, value: Any) -> None:
    loaded: Any = load_params("mini", edited(tmp_path, f"mini.{key}", value))
    for part in key.split("."):
        loaded = getattr(loaded, part)
    assert loaded == value


@pytest.mark.parametrize("kind", KINDS)
def test_strengths_are_taken_at_the_start_exactly_if_they_are_later(tmp_path: Path, kind: str) -> None:
    def takes(act, *given: Any) -> bool:
        try:
            act(*given)
        except UserError:
            return False
        return True

    image, answers = Image.new("RGB", (8, 8)), set()
    fractions = [] if kind in ("jpeg", "noise") else [0.009, 0.01, 0.04, 0.05, 1.2, 100.5]
    for strength in [-5, 0, 1, 2, 100, 101, 255, 256, *fractions]:
        file = edited(tmp_path, f"mini.robustness.{kind}", [strength])
        taken = takes(load_params, "mini", file)
        assert taken == takes(perturb, image, kind, strength, 1), strength
        answers.add(taken)
    assert answers == {True, False}


def test_the_sources_that_may_be_tagged_are_those_that_records_have() -> None:
    embedded = ROOT / "embedded"
    readers = {
        "genimage": genimage.read,
        "ffpp": lambda root: ffpp.read(root, 1),
        "chameleon": chameleon.read,
        "cvusa": cvusa.read,
        "vigor": vigor.read,
        "m6doc": m6doc.read,
    }
    assert set(readers) | {"fakeclue"} == set(load_params("mini").collect.corpora.model_dump())
    sources = {next(iter(read(embedded / corpus))).source for corpus, read in readers.items()}
    sources |= {record.source for record, _ in painted.synthesize(1, 17)}
    assert sources == set(get_args(Source))


@pytest.mark.parametrize("profile", ["paper", "released"])
def test_the_rehearsals_values_fit_too(tmp_path: Path, profile: str) -> None:
    changes = yaml.safe_load((ROOT / "tests/rehearsal.yaml").read_text())[profile]
    section = yaml.safe_load((ROOT / "params.yaml").read_text())[profile]
    params = Params(profile=profile, **located(changed(section, changes), 8000, tmp_path))
    assert params.base == str(tmp_path / "llava")

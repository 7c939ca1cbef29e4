"""The catalogue and `verify`: the miniature is complete; what is missing is named with where to get it."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from fakevlm.config.params import load_params
from fakevlm.data.corpora import ffpp, genimage
from fakevlm.errors import UserError
from fakevlm.tools import verify
from fakevlm.tools.catalogue import catalogue
from fakevlm.tools.layouts import LISTS, NAMES
from test_corpora_fakeclue import release

MINI = load_params("mini")


@pytest.fixture
def data(project: Path) -> Path:
    """A project whose data/ is the embedded miniature."""
    (project / "data").mkdir()
    for folder in (ROOT / "embedded").iterdir():
        (project / "data" / folder.name).symlink_to(folder)
    return project / "data"


def own(data: Path, key: str) -> Path:
    """The corpus's folder, its files now single links: something may be taken away."""
    (data / key).unlink()
    shutil.copytree(ROOT / "embedded" / key, data / key, copy_function=lambda s, d: Path(d).symlink_to(s))
    return data / key


def report(key: str, data: Path) -> verify.Report:
    return verify.verify(key, data / key, data / "ffpp")


def text(key: str, data: Path) -> str:
    return "\n".join(verify.lines(report(key, data)))


def test_every_corpus_of_the_profile_is_in_the_catalogue_with_its_reader() -> None:
    named = {*MINI.collect.corpora.folders(), *MINI.collect.benchmarks.folders()}
    assert named <= set(catalogue())
    assert list(verify.WHERE) == list(catalogue())
    assert {*NAMES, *LISTS} <= set(catalogue())
    for key, corpus in catalogue().items():
        assert corpus.url in verify.WHERE[key], "the catalogue and the reader name the same address"


def test_every_count_has_a_source_and_is_counted_by_somebody(data: Path) -> None:
    for key, corpus in catalogue().items():
        if (data / key).is_dir():
            assert set(report(key, data).counts) == set(corpus.counts), key
        assert all(len(count.source) > 10 for count in corpus.counts.values())


def test_sums_of_the_catalogue() -> None:
    loki = catalogue()["loki"].counts
    split = [c.full for name, c in loki.items() if name.startswith(("real ", "fake "))]
    assert sum(split) == loki["images asked about"].full
    fakes = catalogue()["genimage"].counts
    assert (
        sum(c.full for name, c in fakes.items() if name.startswith("fake images, "))
        == fakes["fake images"].full
    )
    assert sum(c.full for c in catalogue()["fakeclue"].counts.values()) == 109_343


def test_the_miniature_is_complete(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify.main([], "mini") == verify.COMPLETE
    told = capsys.readouterr().out
    assert "9 of 9 complete; not looked at: fakeclue" in told
    assert "MISSING" not in told
    assert "found 80; the full corpus has 1,000" in told
    assert "CC BY-NC-SA 4.0" in told


@pytest.mark.parametrize(
    ("key", "gone", "named"),
    [
        ("genimage", "GLIDE", "GLIDE/val/nature"),
        ("genimage", "ADM/val/ai", "ADM/val/ai"),
        ("ffpp", "splits/val.json", "splits/val.json"),
        ("ffpp", "manipulated_sequences/FaceSwap", "manipulated_sequences/FaceSwap/c23/videos"),
        ("chameleon", "test/1_fake", "test/1_fake"),
        ("cvusa", "bingmap", "bingmap/19"),
        ("vigor", "Seattle", "Seattle/satellite"),
        ("m6doc", "annotations/instances_test2017.json", "annotations/instances_test2017.json"),
        ("loki", "data_json/image/open_ended_vqa.json", "open_ended_vqa.json"),
        ("loki", "image/medicine", "image/medicine/"),
        ("ddvqa", "test_set/Original/Original.json", "test_set/Original/Original.json"),
        ("dmimage", "eg3d", "EG3D: one of eg3d"),
    ],
)
def test_what_is_missing_is_named(data: Path, key: str, gone: str, named: str) -> None:
    place = own(data, key) / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert not report(key, data).complete
    told = text(key, data)
    assert any(named in line for line in told.splitlines() if "MISSING" in line)
    assert f"cure     {verify.WHERE[key]}" in told


def test_single_files_that_lists_name_are_missed(data: Path) -> None:
    video = ffpp.pairs(data / "ffpp", "test")[0]
    for key in ("ffpp", "cvusa", "m6doc"):
        own(data, key)
    (data / f"ffpp/manipulated_sequences/Face2Face/c23/videos/{video[1]}_{video[0]}.mp4").unlink()
    assert f"{video[1]}_{video[0]}, of videos of test.json, Face2Face" in text("ffpp", data)
    aerial = next((data / "cvusa/bingmap/19").iterdir())
    aerial.unlink()
    assert f"MISSING  bingmap/19/{aerial.name}" in text("cvusa", data)
    page = next((data / "m6doc/train2017").iterdir())
    page.unlink()
    assert f"MISSING  train2017/{page.name}" in text("m6doc", data)


def test_ddvqa_misses_the_videos_it_asks_about(data: Path) -> None:
    for video in (own(data, "ffpp") / "manipulated_sequences/Deepfakes/c23/videos").iterdir():
        video.unlink()
    told = text("ddvqa", data)
    assert "MISSING  Deepfakes " in told
    assert "more, of videos of train_set in FaceForensics++" in told


def test_a_list_that_cannot_be_read_is_a_problem_and_no_crash(data: Path) -> None:
    file = own(data, "loki") / "data_json/image/true_or_false.json"
    file.unlink()
    file.write_text("[{")
    assert "true_or_false.json is not readable JSON" in text("loki", data)
    assert not report("loki", data).complete


def test_an_empty_folder_is_not_taken_for_a_full_one(data: Path) -> None:
    shutil.rmtree(own(data, "chameleon") / "test/0_real")
    (data / "chameleon/test/0_real").mkdir()
    assert "MISSING  test/0_real (there, but no images in it)" in text("chameleon", data)


def test_unpacked_folder_names_of_genimage_are_understood(data: Path) -> None:
    (own(data, "genimage") / "ADM").rename(data / "genimage/imagenet_ai_0508_adm")
    assert report("genimage", data).complete
    assert set(genimage.PUBLISHED) == set(genimage.GENERATORS)
    assert all(genimage.generator_of(folder) == key for key, folder in genimage.PUBLISHED.items())


def test_archives_that_lie_there_packed_are_pointed_out(data: Path) -> None:
    shutil.rmtree(own(data, "genimage") / "ADM")
    (data / "genimage/imagenet_ai_0508_adm.zip").write_bytes(b"PK")
    assert "still packed: imagenet_ai_0508_adm.zip; `fakevlm unpack" in text("genimage", data)


def test_command_on_folders_the_profile_does_not_name(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    release(tmp_path / "release")
    assert verify.main([f"fakeclue={tmp_path / 'release'}"], None) == verify.COMPLETE
    told = capsys.readouterr().out
    assert "there    images of train.json in train.zip: 4" in told
    assert "fake images in train: found 3; the full corpus has 68,396" in told
    rows = json.loads((tmp_path / "release/data_json/test.json").read_text())
    rows[0]["image"] = "satellite/real/nowhere.jpg"
    (tmp_path / "release/data_json/test.json").write_text(json.dumps(rows))
    assert verify.main([f"fakeclue={tmp_path / 'release'}", "vigor"], None) == verify.INCOMPLETE
    told = capsys.readouterr().out
    assert "MISSING  satellite/real/nowhere.jpg, of images of test.json in test.zip (1 there)" in told
    assert "1 of 2 complete" in told


def test_command_says_what_it_cannot_look_at(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify.main(["fakeclue"], None) == verify.INCOMPLETE
    assert "look at a folder with `fakeclue=FOLDER`" in capsys.readouterr().out
    with pytest.raises(UserError, match="no corpus 'genimages'"):
        verify.main(["genimages"], None)
    assert verify.main(["vigor=/nowhere/at/all"], None) == verify.INCOMPLETE
    assert "MISSING  no folder /nowhere/at/all" in capsys.readouterr().out


def test_a_broken_catalogue_is_named(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.yaml"
    file.write_text("genimage: {name: x}\n")
    with pytest.raises(UserError, match=r"catalogue\.yaml does not fit"):
        catalogue(file)

"""The collect stage on tiny corpora: quarantine, duplicates, leakage, ground truth, draws, kills."""

import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import killed_after
from fakevlm import paths
from fakevlm.cache import Cache
from fakevlm.collection.amounts import drawn
from fakevlm.collection.collect import Filter, collect
from fakevlm.collection.preview import contact_sheet, sample
from fakevlm.config.params import FaceCrop
from fakevlm.data.corpora import ffpp
from fakevlm.data.corpora.faces import make_cropper
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth, write_ground_truth
from fakevlm.data.records import FAKE, REAL, Record, read_frame, read_records
from fakevlm.errors import UserError
from fakevlm.prefetch import prefetch
from smallcorpora import ddvqa_tree, ffpp_tree, film, landmarks_tree, m6doc_tree, picture, put, settings
from smallworld import content

GOOD, COPY = "genimage/real/glide/n02099601_1.JPEG", "genimage/real/adm/n02099601_1.JPEG"
FAKED = "genimage/fake/adm/1_adm_1.PNG"


@pytest.fixture
def genimage(tmp_path: Path) -> Path:
    files = {"ADM/train/ai/1_adm_1.PNG": picture(1), "ADM/train/ai/1_adm_2.PNG": picture(2)[:300]}
    files |= {f"{g}/train/nature/n02099601_1.JPEG": picture(3) for g in ("ADM", "GLIDE")}
    return put(tmp_path / "genimage", files | {"GLIDE/train/nature/n02099601_2.JPEG": b""})


def kept(unique: Filter, records: list[Record]) -> list[str]:
    return [inspected.record.id for inspected in unique.kept("x", records)]


def test_collect_checks_counts_and_compares(tmp_path: Path, genimage: Path) -> None:
    # One image is also in GenImage; one is here twice, and kept: a benchmark stays as it is.
    names = {"real_ucid/a": 3, "real_ucid/b": 4, "dalle_2/c": 5, "dalle_2/d": 5}
    files = {f"{name}.jpg": picture(seed) for name, seed in names.items()}
    files |= {"dalle_2/e.jpg": b"gone", "real_ucid/near.png": picture(3, "PNG")}
    dmimage, out = put(tmp_path / "dmimage", files), tmp_path / "out"
    results = collect(settings(genimage=genimage, dmimage=dmimage), out)
    expected = [(GOOD, 30, 20, picture(3)), (FAKED, 30, 20, picture(1))]
    assert [(r.id, r.width, r.height, r.image) for r in read_records(out / "records")] == expected
    quarantine = pd.read_csv(out / "quarantine.csv")
    assert "truncated" in quarantine["reason"][1].lower()
    assert quarantine.values.tolist() == [
        ["genimage", "genimage/real/glide/n02099601_2.JPEG", "empty file"],
        ["genimage", "genimage/fake/adm/1_adm_2.PNG", quarantine["reason"][1]],
        ["dmimage", "dmimage/fake/dalle_2/e.jpg", "not a known image format"],
    ]
    assert pd.read_csv(out / "duplicates.csv")[["kept", "dropped"]].values.tolist() == [[GOOD, COPY]]
    assert pd.read_csv(out / "leakage.csv").values.tolist() == [
        ["dmimage", "dmimage/real/real_ucid/a.jpg", GOOD, "content", 0],
        ["dmimage", "dmimage/real/real_ucid/near.png", GOOD, "perceptual", 2],
    ]
    sources = pd.read_csv(out / "sources.csv", keep_default_na=False)
    assert sources.values.tolist() == [["genimage", 0, "adm", 1], ["genimage", 1, "", 1]]
    assert results.benchmarks == {"dmimage": 5}
    assert len(read_frame(out / "benchmarks" / "dmimage")) == 5
    assert list(read_records(out / "benchmarks" / "loki")) == []  # left out: there, and empty
    assert (out / "ground_truth.jsonl").read_text() == ""


def test_truth_of_kept_images_is_passed_on(tmp_path: Path, genimage: Path) -> None:
    ground_truth = tmp_path / "ground_truth.jsonl"
    write_ground_truth([GroundTruth(FAKED, FAKE, "animal"), GroundTruth(COPY, REAL, "animal")], ground_truth)
    collect(settings(genimage=genimage, ground_truth=ground_truth), tmp_path / "out")
    assert list(read_ground_truth(tmp_path / "out/ground_truth.jsonl")) == [FAKED]
    good = '{"path": "a", "label": 1, "category": "x", "artifacts": [{"kind": "halo", "region": [0, 0, 1, 1],'
    for line in ('{"path": "a"}', good.replace("1", "true", 1), good + '"strength": NaN}]}', "\xe4"):
        ground_truth.write_bytes(line.encode("latin-1"))
        with pytest.raises(UserError, match=r"ground_truth\.jsonl, line 1: not a line of ground truth"):
            read_ground_truth(ground_truth)
    write_ground_truth([GroundTruth(FAKED, REAL, "animal")], ground_truth)
    for file, problem in ((tmp_path / "nowhere", "no file .*/nowhere"), (ground_truth, "another label")):
        with pytest.raises(UserError, match=problem):
            collect(settings(genimage=genimage, ground_truth=file), tmp_path / "out")


def test_the_same_inputs_make_the_same_bytes_and_synthesized_images_join(tmp_path, genimage) -> None:
    corpora = {"genimage": genimage, "m6doc": m6doc_tree(tmp_path / "m6doc")}
    params = settings(**corpora, synthetic_satellites=3, synthetic_documents=4)
    for name in ("a", "b"):
        collect(params, tmp_path / name)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    fakes = read_frame(tmp_path / "a/records").query("label == 0 and source != 'genimage'")
    assert fakes["category"].value_counts().to_dict() == {"doc": 4, "satellite": 3}
    assert set(fakes.query("category == 'doc'")["group"]) <= {"doc/real/0001.jpg", "doc/real/0003.jpg"}
    ground_truths = read_ground_truth(tmp_path / "a/ground_truth.jsonl")
    assert set(ground_truths) == set(fakes["id"])
    assert all(ground_truth.artifacts for ground_truth in ground_truths.values())


def test_ffpp_benchmark_is_the_test_split_and_does_not_leak(tmp_path: Path) -> None:
    folders = {"ffpp": ffpp_tree(tmp_path / "ffpp"), "ddvqa": ddvqa_tree(tmp_path / "ddvqa")}
    out = tmp_path / "out"
    results = collect(settings(**folders, frames_per_video=2), out)
    benchmark, training = read_frame(out / "benchmarks" / "ffpp"), read_frame(out / "records")
    assert (set(benchmark["split"]), set(benchmark["source"])) == ({"test"}, {"ff++"})
    assert len(training[training["split"] == "test"]) == len(benchmark) > 0
    assert results.benchmarks["ddvqa"] == 6
    assert results.leakage.empty, "frames of the test split are not trainable"
    assert results.duplicates.empty
    collect(settings(**folders, frames_per_video=2, at_most={"ffpp": 4}), out)
    assert len(read_frame(out / "records")) < len(training)
    assert set(read_frame(out / "benchmarks" / "ffpp")["id"]) == set(benchmark["id"]), "not thinned"


def test_a_copy_of_a_test_frame_leaves_the_ffpp_benchmark(tmp_path: Path) -> None:
    root, out = ffpp_tree(tmp_path / "ffpp"), tmp_path / "out"
    frame = next(r for r in ffpp.read(root, 1) if r.split == "test")
    genimage = put(tmp_path / "genimage", {"ADM/train/nature/n02099601_1.JPEG": frame.image})
    results = collect(settings(genimage=genimage, ffpp=root, frames_per_video=1), out)
    assert results.duplicates["dropped"].tolist() == [frame.id]
    assert frame.id not in set(read_frame(out / "benchmarks" / "ffpp")["id"])
    assert results.leakage.empty


def test_faces_are_cropped_and_frames_without_one_counted(tmp_path: Path) -> None:
    root = ffpp_tree(tmp_path / "ffpp")
    landmarks_tree(root / "original_sequences/youtube/c23/videos", "000", (0, 8))
    crop = {"detector": "landmarks", "score": 0.9, "size": 16, "scale": 1.3}
    results = collect(settings(ffpp=root, frames_per_video=2, face_crop=crop), tmp_path / "out")
    assert results.quarantine.reason.tolist() == ["no face found"] * (2 * (3 + 4 * 2))
    assert set(read_frame(tmp_path / "out/records")["width"]) == {16}


def test_a_profile_without_images_is_named_and_a_benchmark_alone_is_enough(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="collects no image"):
        collect(settings(), tmp_path / "out")
    root = put(tmp_path / "dmimage", {"real_ucid/a.jpg": picture(3), "dalle_2/c.jpg": picture(5)})
    assert collect(settings(dmimage=root), tmp_path / "out").benchmarks == {"dmimage": 2}


def test_one_image_with_two_labels_is_quarantined_and_images_of_one_name_get_ids_of_their_own() -> None:
    unique = Filter()
    records = [Record("x/a.jpg", picture(1), REAL, "x"), Record("x/b.jpg", picture(1), FAKE, "x")]
    assert kept(unique, records) == ["x/a.jpg"]
    assert unique.quarantine == [("x", "x/b.jpg", "same content as x/a.jpg, which has the other label")]
    assert unique.duplicates == []
    both = Filter(unique=False)  # the release, and benchmarks
    assert kept(both, records) == ["x/a.jpg", "x/b.jpg"]
    assert "which has the other label; both are kept" in both.quarantine[0].reason
    records = [Record("x/a.b.jpg", picture(n), REAL, "x") for n in range(3)]
    assert kept(Filter(), records) == ["x/a.b.jpg", "x/a.b~2.jpg", "x/a.b~3.jpg"]


def test_labels_and_texts_that_are_none_are_set_aside() -> None:
    wrong = [{"label": label} for label in (True, 2, None, "1")]
    wrong += [{"question": " "}, {"question": 5}, {"references": ["Good.", None]}, {"references": ["\n"]}]
    fields = [{"label": REAL, "source": "x"} | row for row in wrong]
    records = [Record(f"x/{n}.jpg", picture(n), **row) for n, row in enumerate(fields)]
    cut = Record("x/cut.jpg", picture(99), np.int64(0), "x", references=["half an emoji: \ud83d"])
    checked = Filter()
    assert kept(checked, [*records, cut]) == ["x/cut.jpg"]
    assert cut.references == ["half an emoji: \ufffd"]
    assert all(re.search("label|no text", row.reason) for row in checked.quarantine)


def test_a_name_that_is_not_utf8_and_a_decoder_that_fails_are_set_aside(monkeypatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("Decoding of AVIF failed")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    unique, names = Filter(), ("x/\udcce\udcc4.jpg", "x/b.jpg")
    assert kept(unique, [Record(name, picture(1), REAL, "x") for name in names]) == []
    assert "not UTF-8" in unique.quarantine[0].reason
    assert unique.quarantine[1].reason == "Decoding of AVIF failed"
    pd.DataFrame(unique.quarantine).to_csv(encoding="utf-8").encode()


def test_the_sheet_shows_every_source_and_label() -> None:
    rows = [(source, label) for source in ("a", "b") for label in (FAKE, REAL)]
    stream = [Record(f"{s}/{n}.jpg", picture(n), label, s) for s, label in rows for n in range(7)]
    drawn = sample(iter(stream), 3, seed=1)
    assert {key: len(records) for key, records in drawn.items()} == dict.fromkeys(rows, 3)
    assert drawn == sample(iter(stream), 3, seed=1)
    assert any(int(r.id[2:-4]) >= 3 for records in drawn.values() for r in records), "not only the first ones"
    assert contact_sheet(iter(stream), per_row=3, seed=1).size == (132 + 3 * 100, 4 * 100)


def test_thinning_draws_by_id_and_seed(tmp_path: Path, monkeypatch) -> None:
    reads, read, corpus = [], Path.read_bytes, "chameleon"
    names = enumerate(("test/0_real/{0}.jpg", "test/1_fake/deep/{0}.jpg"))
    files = {name.format(n): picture(100 * k + n) for k, name in names for n in range(30)}
    root = put(tmp_path / corpus, files)

    def collected(at_most: dict[str, int], seed: int = 17) -> list[str]:
        collect(settings(chameleon=root, at_most=at_most).model_copy(update={"seed": seed}), tmp_path / "out")
        return list(read_frame(tmp_path / "out" / "records")["id"])

    monkeypatch.setattr(Path, "read_bytes", lambda file: reads.append(file) or read(file))
    everything = collected({})
    assert collected({corpus: len(everything)}) == collected({"ffpp": 1}) == everything
    reads.clear()
    few = collected({corpus: 9})
    assert few == [id for id in everything if drawn(id, 9 / len(everything), 17)]
    assert len(reads) == len(few) < len(everything), "only drawn images are read"
    assert set(few) < set(collected({corpus: 20})), "more of them hold the fewer"
    assert collected({corpus: 9}, seed=4) != few


def test_prefetch_keeps_the_order_takes_no_more_than_it_needs_and_raises_an_error_in_its_turn() -> None:
    items, last_first = iter(range(1000)), threading.Event()

    def work(n: int) -> float:
        if n == 2:
            last_first.set()
        assert last_first.wait(10), "the others are done meanwhile"
        return 1 / (n - 6)

    results = prefetch(work, items, threads=3)
    assert [next(results) for _ in range(6)] == [1 / (n - 6) for n in range(6)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(items) < 15


def test_a_killed_collection_decodes_no_video_twice(project: Path, tmp_path: Path, monkeypatch) -> None:
    folders = {"ffpp": ffpp_tree(tmp_path / "ffpp"), "ddvqa": ddvqa_tree(tmp_path / "ddvqa")}
    params = settings(**folders, frames_per_video=2)
    collect(params, tmp_path / "expected")
    assert (paths.work() / "collect.sqlite").is_file(), "the rest of the notebook may fail"
    shutil.rmtree(paths.work())
    decode, decoded = ffpp.frames, []
    monkeypatch.setattr(ffpp, "frames", lambda file, chosen: decoded.append(file) or decode(file, chosen))
    with killed_after(7, ffpp, "frames"):
        collect(params, tmp_path / "out")
    collect(params, tmp_path / "out")
    assert len(decoded) == len(set(decoded)) == len(list((tmp_path / "ffpp").rglob("*.mp4")))
    assert content(tmp_path / "out") == content(tmp_path / "expected")


def test_frames_are_decoded_again_if_anything_changed_or_was_missing(tmp_path: Path, monkeypatch) -> None:
    videos = ffpp_tree(tmp_path) / "original_sequences/youtube/c23/videos"
    landmarks = landmarks_tree(videos, "000", (0, 8))
    values, keys = Cache(None), []
    put_frames = values.put
    monkeypatch.setattr(values, "put", lambda key, data: keys.append(key) or put_frames(key, data))
    crop = make_cropper(FaceCrop(detector="landmarks", score=0.9, size=16, scale=1.3))

    def read(wanted: int, **options) -> tuple[list[str], int, int]:
        """Names of the frames, how many are unusable, how many videos were cached."""
        pictures, unusable = ffpp.video_frames(tmp_path, None, "000", wanted, values=values, **options)
        return [name for name, _ in pictures], len(unusable), len(keys)

    assert read(3, crop=crop) == (["000.png", "008.png"], 1, 0), "frame 4 may get its landmarks yet"
    shutil.copy(landmarks / "000.npy", landmarks / "004.npy")
    for _ in range(2):
        assert read(3, crop=crop) == (["000.png", "004.png", "008.png"], 0, 1)
    np.save(landmarks / "004.npy", np.load(landmarks / "004.npy") + 1)
    (landmarks / "004.npy").touch()
    assert read(3, crop=crop)[2] == 2
    assert read(3, crop=make_cropper(FaceCrop(detector="landmarks", score=0.9, size=32, scale=1.3)))[2] == 3
    assert read(2)[2] == 4
    assert read(3) == (["000.png", "004.png", "008.png"], 0, 5)
    film(videos / "000.mp4", 5)
    assert read(3) == (["000.png", "002.png", "004.png"], 0, 6)

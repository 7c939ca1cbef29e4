"""The collect stage on tiny corpora: quarantine, duplicates, leakage, ground truth, counts, errors."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fakevlm.collection.collect import collect
from fakevlm.collection.filter import Filter, inspect
from fakevlm.collection.preview import contact_sheet, sample
from fakevlm.config.params import Params, load_params
from fakevlm.data.corpora import ffpp, m6doc
from fakevlm.data.corpora.files import Quarantine, count_images, images_below
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth, write_ground_truth
from fakevlm.data.records import FAKE, REAL, Record, read_frame, read_records
from fakevlm.errors import UserError


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, format="JPEG")
    return out.getvalue()


def put(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def passed(unique: Filter, corpus: str, records: list[Record]) -> list[Record]:
    return [record for record in records if unique.accepts(corpus, inspect(record))]


def settings(**changes) -> Params:
    """The default profile with no corpus at all, changed."""
    values = load_params().model_dump()
    found = values["collect"]
    found["corpora"] = dict.fromkeys(found["corpora"])
    found["benchmarks"] = dict.fromkeys(found["benchmarks"])
    found |= {
        "truth": None,
        "synthetic_documents": 0,
        "synthetic_satellites": 0,
        "satellites": None,
        "renderer": "miniature",
    }
    for key, value in changes.items():
        place = next((found[s] for s in ("corpora", "benchmarks") if key in found[s]), found)
        place[key] = str(value) if isinstance(value, Path) else value
    return Params(**values)


def genimage_tree(root: Path) -> None:
    put(root / "ADM/train/ai/1_adm_1.PNG", picture(1))
    put(root / "ADM/train/ai/1_adm_2.PNG", picture(2)[:300])
    put(root / "ADM/train/nature/n02099601_1.JPEG", picture(3))
    put(root / "GLIDE/train/nature/n02099601_1.JPEG", picture(3))
    put(root / "GLIDE/train/nature/n02099601_2.JPEG", b"")


def dmimage_tree(root: Path) -> None:
    put(root / "real_ucid/a.jpg", picture(3))  # also in GenImage
    put(root / "real_ucid/b.jpg", picture(4))
    put(root / "dalle_2/c.jpg", picture(5))
    put(root / "dalle_2/d.jpg", picture(5))  # twice, and kept: a benchmark stays as it is
    put(root / "dalle_2/e.jpg", b"gone")


def test_collect_checks_counts_and_compares(tmp_path: Path) -> None:
    genimage_tree(tmp_path / "genimage")
    dmimage_tree(tmp_path / "dmimage")
    out = tmp_path / "out"
    found = collect(settings(genimage=tmp_path / "genimage", dmimage=tmp_path / "dmimage"), out)
    assert list(read_frame(out / "records")["id"]) == [
        "genimage/real/glide/n02099601_1.JPEG",
        "genimage/fake/adm/1_adm_1.PNG",
    ]
    assert [(r.width, r.height, r.image) for r in read_records(out / "records")] == [
        (30, 20, picture(3)),
        (30, 20, picture(1)),
    ]
    quarantine = pd.read_csv(out / "quarantine.csv")
    assert quarantine.values.tolist() == [
        ["genimage", "genimage/real/glide/n02099601_2.JPEG", "empty file"],
        ["genimage", "genimage/fake/adm/1_adm_2.PNG", quarantine["reason"][1]],
        ["dmimage", "dmimage/fake/dalle_2/e.jpg", "not a known image format"],
    ]
    assert "truncated" in quarantine["reason"][1].lower()
    duplicates = pd.read_csv(out / "duplicates.csv")
    assert duplicates[["kept", "dropped"]].values.tolist() == [
        ["genimage/real/glide/n02099601_1.JPEG", "genimage/real/adm/n02099601_1.JPEG"]
    ]
    assert pd.read_csv(out / "leakage.csv").values.tolist() == [
        ["dmimage", "dmimage/real/real_ucid/a.jpg", "genimage/real/glide/n02099601_1.JPEG", "content", 0]
    ]
    sources = pd.read_csv(out / "sources.csv", keep_default_na=False)
    assert sources.values.tolist() == [["genimage", 0, "adm", 1], ["genimage", 1, "", 1]]
    assert found.benchmarks == {"dmimage": 4}
    assert len(read_frame(out / "benchmarks" / "dmimage")) == 4
    assert list(read_records(out / "benchmarks" / "loki")) == []  # left out: there, and empty
    assert (out / "truth.jsonl").read_text() == ""


def test_truth_of_kept_images_is_passed_on(tmp_path: Path) -> None:
    genimage_tree(tmp_path / "genimage")
    kept, dropped = "genimage/fake/adm/1_adm_1.PNG", "genimage/real/adm/n02099601_1.JPEG"
    ground_truth = [GroundTruth(kept, FAKE, "animal"), GroundTruth(dropped, REAL, "animal")]
    write_ground_truth(ground_truth, tmp_path / "truth.jsonl")
    collect(settings(genimage=tmp_path / "genimage", truth=tmp_path / "truth.jsonl"), tmp_path / "out")
    assert list(read_ground_truth(tmp_path / "out/truth.jsonl")) == [kept]


def test_synthesized_images_join_the_records(tmp_path: Path) -> None:
    out = tmp_path / "out"
    collect(settings(synthetic_satellites=3), out)
    frame = read_frame(out / "records")
    assert len(frame) == 3
    assert set(frame["label"]) == {FAKE}
    assert set(frame["category"]) == {"satellite"}
    ground_truth = read_ground_truth(out / "truth.jsonl")
    assert set(ground_truth) == set(frame["id"])
    assert all(truth.artifacts for truth in ground_truth.values())


def test_the_same_inputs_make_the_same_bytes(tmp_path: Path) -> None:
    genimage_tree(tmp_path / "genimage")
    params = settings(genimage=tmp_path / "genimage", synthetic_satellites=2)
    trees = []
    for name in ("a", "b"):
        collect(params, tmp_path / name)
        trees.append({f.relative_to(tmp_path / name): f.read_bytes() for f in (tmp_path / name).rglob("*.*")})
    assert trees[0] == trees[1]
    assert len(trees[0]) == 10


def test_ffpp_benchmark_is_the_test_split_and_does_not_leak(tmp_path: Path) -> None:
    from test_corpora_faces import ddvqa_tree, tree

    tree(tmp_path / "ffpp")
    ddvqa_tree(tmp_path / "ddvqa")
    out = tmp_path / "out"
    found = collect(
        settings(ffpp=tmp_path / "ffpp", ddvqa=tmp_path / "ddvqa", frames_per_video=2, truth=None), out
    )
    tested = read_frame(out / "benchmarks" / "ffpp")
    assert set(tested["split"]) == {"test"}
    assert set(tested["source"]) == {"ff++"}
    everything = read_frame(out / "records")
    assert len(everything[everything["split"] == "test"]) == len(tested) > 0
    assert found.benchmarks["ddvqa"] == 6
    assert found.leakage.empty, "frames of the test split are not trainable"
    assert found.duplicates.empty
    thinned = settings(
        ffpp=tmp_path / "ffpp", ddvqa=tmp_path / "ddvqa", frames_per_video=2, at_most={"ffpp": 4}
    )
    collect(thinned, out)
    assert len(read_frame(out / "records")) < len(everything)
    again = read_frame(out / "benchmarks" / "ffpp")
    assert set(again["id"]) == set(tested["id"]), "thinning what is trained on leaves the benchmark whole"


def test_a_copy_of_a_test_frame_leaves_the_ffpp_benchmark(tmp_path: Path) -> None:
    from test_corpora_faces import tree

    tree(tmp_path / "ffpp")
    copied = next(r for r in ffpp.read(tmp_path / "ffpp", 1) if r.split == "test")
    put(tmp_path / "genimage/ADM/train/nature/n02099601_1.JPEG", copied.image)
    out = tmp_path / "out"
    found = collect(settings(genimage=tmp_path / "genimage", ffpp=tmp_path / "ffpp", frames_per_video=1), out)
    assert found.duplicates["dropped"].tolist() == [copied.id]
    assert copied.id not in set(read_frame(out / "benchmarks" / "ffpp")["id"])
    assert found.leakage.empty


def test_ddvqa_without_ffpp_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpora\.ffpp is null"):
        collect(settings(ddvqa=tmp_path, synthetic_satellites=1), tmp_path / "out")


def test_no_corpus_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="collects no image"):
        collect(settings(), tmp_path / "out")


def test_a_missing_corpus_stops_with_its_cure(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        collect(settings(chameleon=tmp_path / "nowhere"), tmp_path / "out")
    assert f"collect.corpora.chameleon: no folder {tmp_path / 'nowhere'}" in error.value.what
    assert "ask its authors for Chameleon" in error.value.what
    assert "with null" in error.value.cure
    assert not (tmp_path / "out").exists()


def test_a_benchmark_alone_is_enough(tmp_path: Path) -> None:
    dmimage_tree(tmp_path / "dmimage")
    assert collect(settings(dmimage=tmp_path / "dmimage"), tmp_path / "out").benchmarks == {"dmimage": 4}


def record(name: str, data: bytes, label: int = REAL) -> Record:
    return Record(name, data, label, "x", name)


def test_one_image_with_two_labels_is_quarantined() -> None:
    quarantine = Quarantine()
    unique = Filter(quarantine)
    kept = passed(unique, "x", [record("x/a.jpg", picture(1)), record("x/b.jpg", picture(1), FAKE)])
    assert [r.id for r in kept] == ["x/a.jpg"]
    assert quarantine.rows == [("x", "x/b.jpg", "same content as x/a.jpg, which has the other label")]
    assert unique.duplicates == []


def test_two_images_of_one_name_get_two_ids() -> None:
    kept = passed(Filter(Quarantine()), "x", [record("x/a.b.jpg", picture(n)) for n in range(3)])
    assert [r.id for r in kept] == ["x/a.b.jpg", "x/a.b~2.jpg", "x/a.b~3.jpg"]


def test_the_profiles_keys_are_typed(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = Path(load_params.__globals__["paths"].root() / "params.yaml").read_text()
    file.write_text(text.replace("renderer: miniature", "renderer: crayons"))
    with pytest.raises(UserError, match=r"collect\.renderer"):
        load_params(file=file)


def test_the_sheet_shows_every_source_and_label() -> None:
    stream = [
        Record(f"{source}/{n}.jpg", picture(n), label, source, "x")
        for source in ("a", "b")
        for label in (FAKE, REAL)
        for n in range(7)
    ]
    drawn = sample(iter(stream), 3, seed=1)
    assert {key: len(rows) for key, rows in drawn.items()} == {
        (source, label): 3 for source in ("a", "b") for label in (FAKE, REAL)
    }
    assert drawn == sample(iter(stream), 3, seed=1)
    assert any(int(r.id[2:-4]) >= 3 for rows in drawn.values() for r in rows), "not only the first ones"
    sheet = contact_sheet(iter(stream), per_row=3, seed=1)
    assert sheet.size == (132 + 3 * 100, 4 * 100)


def test_csvs_have_headers_even_when_empty(tmp_path: Path) -> None:
    collect(settings(synthetic_satellites=1), tmp_path / "out")
    for name, columns in {
        "quarantine": ["corpus", "path", "reason"],
        "duplicates": ["sha256", "kept", "dropped"],
        "leakage": ["benchmark", "path", "train_path", "kind", "distance"],
    }.items():
        frame = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert list(frame.columns) == columns
        assert frame.empty


def test_documents_follow_m6doc_layouts(tmp_path: Path) -> None:
    from test_corpora import m6doc_tree

    m6doc_tree(tmp_path / "m6doc")
    collect(settings(m6doc=tmp_path / "m6doc", synthetic_documents=4), tmp_path / "out")
    frame = read_frame(tmp_path / "out" / "records").set_index("id")
    fakes = frame[frame["label"] == FAKE]
    assert len(fakes) == 4
    assert set(fakes["item"]) <= {"doc/real/0001.jpg", "doc/real/0003.jpg"}
    assert json.loads((tmp_path / "out" / "truth.jsonl").read_text().splitlines()[0])["category"] == "doc"


def test_a_corpus_may_be_thinned_by_lot(tmp_path: Path) -> None:
    for n in range(60):
        put(tmp_path / f"genimage/ADM/train/ai/{n}_adm_{n}.PNG", picture(n))

    def drawn(at_most: dict, seed: int = 3) -> set[str]:
        params = settings(genimage=tmp_path / "genimage", at_most=at_most).model_copy(update={"seed": seed})
        collect(params, tmp_path / "out")
        return set(read_frame(tmp_path / "out" / "records")["id"])

    whole, half, few = drawn({}), drawn({"genimage": 30}), drawn({"genimage": 6})
    assert len(whole) == len(drawn({"chameleon": 5})) == len(drawn({"genimage": 600})) == 60
    assert 20 <= len(half) <= 40
    assert few < half < whole
    assert drawn({"genimage": 30}) == half
    assert drawn({"genimage": 30}, seed=4) != half


def test_only_pages_that_can_be_used_count_for_the_lot(tmp_path: Path) -> None:
    from test_corpora import m6doc_tree

    m6doc_tree(tmp_path / "m6doc")
    usable = sum(page.style is not None for page in m6doc.pages(tmp_path / "m6doc"))
    assert 0 < usable < len(list(m6doc.pages(tmp_path / "m6doc")))
    found = []
    for at_most in ({}, {"m6doc": usable}):
        collect(settings(m6doc=tmp_path / "m6doc", at_most=at_most), tmp_path / "out")
        found.append(set(read_frame(tmp_path / "out" / "records")["id"]))
    assert found[0] == found[1] != set()


def test_a_generators_folder_may_be_a_link(tmp_path: Path) -> None:
    for n in range(40):
        put(tmp_path / f"disk/train/ai/{n}_adm_{n}.PNG", picture(n))
    (tmp_path / "genimage").mkdir()
    (tmp_path / "genimage/ADM").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/up").symlink_to(tmp_path / "disk")  # a link without end
    assert count_images(tmp_path / "genimage") == len(list(images_below(tmp_path / "genimage"))) == 40
    collect(settings(genimage=tmp_path / "genimage", at_most={"genimage": 10}), tmp_path / "out")
    assert 2 <= len(read_frame(tmp_path / "out" / "records")) <= 20


def test_a_name_that_is_no_utf8_and_a_reader_that_fails_are_set_aside(monkeypatch, tmp_path: Path) -> None:
    quarantine = Quarantine()
    named = record("chameleon/fake/\udcce\udcc4.jpg", picture(1))
    broken = record("chameleon/fake/b.jpg", picture(2))

    def fail(_: object) -> None:
        raise RuntimeError("Decoding of AVIF failed")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert passed(Filter(quarantine), "chameleon", [named, broken]) == []
    reasons = [reason for _, _, reason in quarantine.rows]
    assert "not UTF-8" in reasons[0]
    assert reasons[1] == "Decoding of AVIF failed"
    quarantine.frame().to_csv(tmp_path / "quarantine.csv")

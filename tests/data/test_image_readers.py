"""Readers of still-image corpora, on tiny trees in the corpora's real layouts and file formats."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from fakevlm.collection.amounts import READERS, count, unread
from fakevlm.data.corpora import m6doc
from fakevlm.data.corpora.files import BadImage, Source, decoded, images
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError
from fakevlm.tools import verify
from smallcorpora import loki_tree, m6doc_tree, parted, picture, put

TREES = yaml.safe_load(Path(__file__).with_name("corpora.yaml").read_text())


@pytest.mark.parametrize("corpus", TREES)
def test_files_become_records(tmp_path: Path, corpus: str) -> None:
    put(tmp_path, {file: picture(n) for n, file in enumerate(TREES[corpus])})
    records = list(READERS[corpus](tmp_path))
    expected = {file: row for file, row in TREES[corpus].items() if isinstance(row, list)}
    assert [(r.id, r.generator) for r in records] == [tuple(row) for row in expected.values()]
    assert all(r.label == (REAL if "/real/" in r.id else FAKE) for r in records)
    assert {r.category for r in records} == {"satellite" if corpus == "vigor" else None}
    assert [r.image for r in records] == [(tmp_path / file).read_bytes() for file in expected]
    neighbours = {"satellite/real/satellite_41.873_-87.69.png": "vigor/Chicago/41.87,-87.69"}
    assert [r.group for r in records] == [neighbours.get(r.id, r.id) for r in records]
    passed_over = {row for row in TREES[corpus].values() if isinstance(row, str)}
    assert {f"{path}: {reason}" for _, path, reason in unread(corpus, tmp_path)} == passed_over
    report = "\n".join(verify.lines(verify.verify(corpus, tmp_path)))
    assert all(row in report for row in passed_over)


def test_links_to_nothing_and_pipes_are_not_read_and_make_a_corpus_incomplete(tmp_path: Path) -> None:
    put(tmp_path, {"test/0_real/b.jpg": picture(1), "test/1_fake/c.png": picture(2)})
    assert list(READERS["chameleon"](tmp_path / "test")) == list(READERS["chameleon"](tmp_path))
    assert verify.verify("chameleon", tmp_path).complete
    (tmp_path / "test/0_real/a.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "test/1_fake/d.jpg")
    reasons = [reason.split(": ")[1] for _, _, reason in unread("chameleon", tmp_path)]
    assert reasons == ["a link to nothing", "a pipe or a device"]
    assert len(list(READERS["chameleon"](tmp_path))) == 2
    assert not verify.verify("chameleon", tmp_path).complete


def test_cvusa_reads_what_its_splits_list_or_the_folder(tmp_path: Path) -> None:
    rows = "bingmap/19/{0}.jpg,streetview/panos/{0}.jpg,streetview/annotations/{0}.png\n"
    put(tmp_path, {f"bingmap/19/{n:07d}.jpg": picture(n) for n in (44, 1, 777)} | {"x.jpg": picture(9)})
    assert len(list(READERS["cvusa"](tmp_path))) == 3
    train = rows.format("0000044") + rows.format("0000099") + rows.format("../../x") + "x" * 200_000
    put(tmp_path, {"splits/train-19zl.csv": train, "splits/val-19zl.csv": rows.format("0000001")})
    records, unusable = parted(READERS["cvusa"](tmp_path))
    assert [r.id for r in records] == ["satellite/real/0000044.jpg", "satellite/real/0000001.jpg"]
    assert {(r.label, r.category, r.source) for r in records} == {(REAL, "satellite", "satellite")}
    assert [row.path for row in unusable] == ["bingmap/19/0000099.jpg", "bingmap/19/../../x.jpg"]
    assert {row.reason for row in unusable} == {"named in a list but missing"}
    for content, problem in (("streetview/1.jpg", "names no image"), ("ä".encode("latin-1"), "iconv")):
        put(tmp_path, {"splits/val-19zl.csv": content})
        with pytest.raises(UserError, match=problem):
            list(READERS["cvusa"](tmp_path))


def test_loki_joins_both_questions_and_reads_utf16(tmp_path: Path) -> None:
    records, unusable = parted(READERS["loki"](loki_tree(tmp_path)))
    assert [(r.id, r.label, r.category, r.references) for r in records] == [
        ("loki/image/sence/1.jpg", FAKE, "scene", ["Das Ganze wirkt künstlich. Six fingers."]),
        ("loki/image/animals/2.png", REAL, "animal", []),
        ("loki/image/person/4.jpg", FAKE, "human", []),
    ]
    assert unusable == [("loki", "image/medicine/3.jpg", "named in a list but missing")]
    file = tmp_path / "data_json/image/true_or_false.json"
    rows = json.loads(file.read_text())
    put(tmp_path.parent, {"other/9.jpg": picture(9)})
    file.write_text(json.dumps([*rows, rows[0] | {"image_path": "../other/9.jpg"}]))
    assert [row.path for row in parted(READERS["loki"](tmp_path))[1]] == [unusable[0].path, "../other/9.jpg"]
    rows[1]["question_type"] = "image_tf_image_real_ask_fake_sence"
    file.write_text(json.dumps(rows))
    with pytest.raises(UserError, match="called both"):
        list(READERS["loki"](tmp_path))


def test_m6doc_reads_pages_of_the_three_types(tmp_path: Path) -> None:
    records, unusable = parted(READERS["m6doc"](m6doc_tree(tmp_path)))
    assert sorted(r.id for r in records) == ["doc/real/0001.jpg", "doc/real/magazine_7.jpg"]
    assert {(r.label, r.category, r.source) for r in records} == {(REAL, "doc", "doc")}
    assert unusable == [("m6doc", "test2017/0003.jpg", "named in a list but missing")]
    put(tmp_path, {"test2017/0003.jpg": picture(4)})
    for name in ("annotations/instances_test2017.json", "test2017"):  # both have another name too
        (tmp_path / name).rename(tmp_path / name.replace("2017", ""))
        assert "doc/real/0003.jpg" in [r.id for r in READERS["m6doc"](tmp_path)]


def test_m6doc_layouts(tmp_path: Path) -> None:
    page = next(p for p in m6doc.pages(m6doc_tree(tmp_path)) if p.file.name == "0001.jpg")
    assert page.style == "newspaper"
    names = {"headline": "title", "figure": "figure", "unordered list": "text"}
    assert [(block.name, block.kind) for block in page.layout] == list(names.items())
    assert page.layout[0].box == pytest.approx((0.1, 0.1, 0.9, 0.2))
    assert page.layout[2].box == pytest.approx((0.55, 0.25, 1.0, 0.75)), "clipped at the page's edge"


BOXES = [10, float("nan"), 9, 9], [1, 1, float("inf"), 9], "1234"
OTHERS = {"file_name": "../x.jpg"}, {"width": -200}, {"id": 7}


@pytest.mark.parametrize("change", [*({"bbox": box} for box in BOXES), *OTHERS])
def test_m6doc_names_what_is_no_layout(tmp_path: Path, change: dict) -> None:
    file = m6doc_tree(tmp_path) / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    for row in content["annotations" if "bbox" in change else "images"]:
        row |= change
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances_train2017\.json is not a COCO file"):
        list(m6doc.pages(tmp_path))


def test_page_style() -> None:
    assert m6doc.page_style("test paper 12.jpg", ["section title"]) is None
    assert m6doc.page_style("x.jpg", ["paragraph"]) is None
    assert m6doc.page_style("x.jpg", ["section title", "institute", "paragraph"]) == "paper"
    assert m6doc.page_style("x.jpg", ["drop cap", "paragraph"]) == "magazine"


@pytest.mark.parametrize("corpus", ["genimage", "chameleon", "cvusa", "vigor", "dmimage", "loki", "m6doc"])
def test_a_missing_or_empty_corpus_is_named_with_where_to_get_it(tmp_path: Path, corpus: str) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError) as error:
            list(READERS[corpus](folder))
        assert corpus in error.value.what.lower()
        assert str(folder) in error.value.what
        assert "http" in error.value.cure


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"), (b"<html></html>", "^not a known image format$"), (picture(1)[:200], "(?i)truncated"),
        (picture(1)[:-300], "(?i)truncated"), (picture(1, "PNG")[:400], "(?i)truncated|broken"),
    ],
)  # fmt: skip
def test_broken_images_are_told_apart(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decoded(Record("x/a.jpg", data, REAL, "x"))


def test_json_in_any_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        file.write_bytes(json.dumps({"ä": 1}, ensure_ascii=False).encode(encoding))
        assert Source("X", "get it").json(file, dict) == {"ä": 1}
    problems = {b"{broken": r"a\.json is not readable JSON", b"null": "holds no list", b'["\xe4"]': "iconv"}
    problems |= {b"[" * 10**5: "recursion", b'[{"b": 2, "a": 1, "a": 0}]': "key twice: 'a'"}
    for content, problem in problems.items():
        file.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            Source("X", "get it").json(file)
    file.unlink()
    os.mkfifo(file)  # nobody ever writes to it
    with pytest.raises(UserError, match="no file"):
        Source("X", "get it").json(file)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "disk", {f"train/ai/{n}.png": picture(n) for n in range(3)})
    (tmp_path / "root").mkdir()
    (tmp_path / "root/ADM").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/up").symlink_to(tmp_path / "disk")  # a link without end
    assert len(images(tmp_path / "root")) == 3


@pytest.mark.parametrize("corpus", [key for key in READERS if key != "fakeclue"])
def test_a_corpus_with_companions_is_the_same_corpus(tmp_path: Path, corpus: str) -> None:
    root, faces = tmp_path / corpus, ROOT / "embedded/ffpp"
    options = {"ffpp": [1], "ddvqa": [faces, 1]}.get(corpus, [])

    def state() -> tuple:
        report = verify.lines(verify.verify(corpus, root, faces))
        return list(READERS[corpus](root, *options)), report, count(corpus, root, 1), len(images(root))

    shutil.copytree(ROOT / "embedded" / corpus, root, copy_function=lambda s, d: Path(d).symlink_to(s))
    before = state()
    for file in [p for p in root.rglob("*") if p.is_file()]:  # what macOS leaves beside a copied file
        put(file.parent, {f"._{file.name}": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xff\xfe"})
    assert state() == before
    assert before[0]

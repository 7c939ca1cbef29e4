"""Readers of still-image corpora, on tiny trees in the corpora's real layouts and file formats."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from fakevlm.collection.amounts import READERS, count
from fakevlm.data.corpora import chameleon, cvusa, dmimage, ffpp, genimage, loki, m6doc, vigor
from fakevlm.data.corpora.files import BadImage, count_images, decoded, images, need_json
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError
from fakevlm.tools import verify
from smallcorpora import loki_tree, m6doc_tree, parted, picture, put

AERIAL = "satellite_41.87337878187409_-87.69119741060825.png"


def test_genimage_reads_official_and_unpacked_folder_names(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "ADM/train/ai/416_adm_45.PNG": picture(1, "PNG"),
            "ADM/train/nature/n02099601_123.JPEG": picture(2),
            "Stable Diffusion V1.4/imagenet_ai_0419_sdv4/val/ai/033_sdv4_00134.png": picture(3, "PNG"),
            "Midjourney/val/nature/ILSVRC2012_val_00000293.JPEG": picture(4),
            "Midjourney/val/nature/readme.txt": "not an image",
            "unrelated/train/ai/x.png": picture(5, "PNG"),
        },
    )
    records = list(genimage.read(tmp_path))
    assert [(r.id, r.label, r.generator) for r in records] == [
        ("genimage/real/midjourney/ILSVRC2012_val_00000293.JPEG", REAL, None),
        ("genimage/fake/sdv1.4/033_sdv4_00134.png", FAKE, "sdv1.4"),
        ("genimage/fake/adm/416_adm_45.PNG", FAKE, "adm"),
        ("genimage/real/adm/n02099601_123.JPEG", REAL, None),
    ]
    assert records[2].image == picture(1, "PNG")
    assert {(r.source, r.category, r.split) for r in records} == {("genimage", None, None)}
    assert all(r.item == r.id for r in records)


@pytest.mark.parametrize(
    ("generator", "folders"),
    [
        ("midjourney", ["Midjourney", "imagenet_midjourney"]),
        ("vqdm", ["VQDM", "imagenet_ai_0419_vqdm"]),
        ("wukong", ["Wukong", "imagenet_ai_0424_wukong"]),
        ("sdv1.4", ["Stable Diffusion V1.4", "stable_diffusion_v_1_4", "imagenet_ai_0419_sdv4"]),
        ("sdv1.5", ["Stable Diffusion V1.5", "imagenet_ai_0424_sdv5"]),
        ("glide", ["GLIDE", "imagenet_glide"]),
        ("biggan", ["BigGAN", "imagenet_ai_0419_biggan"]),
        ("adm", ["ADM", "imagenet_ai_0508_adm"]),
        (None, ["train"]),
    ],
)
def test_genimage_generator_names(generator: str | None, folders: list[str]) -> None:
    assert {genimage.generator_of(folder) for folder in folders} == {generator}
    assert set(genimage.PUBLISHED) == set(genimage.GENERATORS)


def test_chameleon(tmp_path: Path) -> None:
    files = {"test/0_real/b.jpg": picture(1), "test/0_real/a.jpg": picture(2)}
    put(tmp_path, files | {"test/1_fake/0b5a.png": picture(3, "PNG")})
    records = list(chameleon.read(tmp_path))
    assert [(r.id, r.label) for r in records] == [
        ("chameleon/real/a.jpg", REAL),
        ("chameleon/real/b.jpg", REAL),
        ("chameleon/fake/0b5a.png", FAKE),
    ]
    assert list(chameleon.read(tmp_path / "test")) == records


def test_cvusa_reads_what_its_splits_list_or_the_folder(tmp_path: Path) -> None:
    rows = "bingmap/19/{0}.jpg,streetview/panos/{0}.jpg,streetview/annotations/{0}.png\n"
    put(
        tmp_path, {f"bingmap/19/{name}.jpg": picture(int(name)) for name in ("0000044", "0000001", "0000777")}
    )
    assert len(list(cvusa.read(tmp_path))) == 3
    train = rows.format("0000044") + rows.format("0000099")
    put(tmp_path, {"splits/train-19zl.csv": train, "splits/val-19zl.csv": rows.format("0000001")})
    records, unusable = parted(cvusa.read(tmp_path))
    assert [r.id for r in records] == ["satellite/real/0000044.jpg", "satellite/real/0000001.jpg"]
    assert {(r.label, r.category, r.source) for r in records} == {(REAL, "satellite", "satellite")}
    assert unusable == [("cvusa", "bingmap/19/0000099.jpg", "listed in splits but missing")]


def test_vigor_reads_aerial_images_only(tmp_path: Path) -> None:
    files = {
        f"Chicago/satellite/{AERIAL}": picture(1, "PNG"),
        "Seattle/satellite/satellite_1.png": picture(2),
    }
    put(tmp_path, files | {"Chicago/panorama/8GI,41.887583,-87.648761,.jpg": picture(2)})
    records = list(vigor.read(tmp_path))
    assert [(r.id, r.label, r.category) for r in records] == [
        (f"satellite/real/{AERIAL}", REAL, "satellite"),
        ("satellite/real/satellite_1.png", REAL, "satellite"),
    ]
    assert [r.item for r in records] == ["vigor/Chicago/41.87,-87.69", records[1].id], "neighbours together"


def test_dmimage(tmp_path: Path) -> None:
    put(tmp_path, {"biggan_256/00001.png": picture(2), "progan_lsun/airplane/00002.png": picture(3)})
    with pytest.raises(UserError, match=r"no real_\* folder"):
        list(dmimage.read(tmp_path))
    put(tmp_path, {"real_coco_valid/000000000139.jpg": picture(1)})
    assert [(r.id, r.label, r.generator) for r in dmimage.read(tmp_path)] == [
        ("dmimage/fake/biggan_256/00001.png", FAKE, "biggan_256"),
        ("dmimage/fake/progan_lsun/airplane/00002.png", FAKE, "progan_lsun"),
        ("dmimage/real/real_coco_valid/000000000139.jpg", REAL, None),
    ]


def test_loki_joins_both_questions_and_reads_utf16(tmp_path: Path) -> None:
    records, unusable = parted(loki.read(loki_tree(tmp_path)))
    assert [(r.id, r.label, r.category, r.references) for r in records] == [
        ("loki/image/sence/1.jpg", FAKE, "scene", ["Das Ganze wirkt künstlich. Six fingers."]),
        ("loki/image/animals/2.png", REAL, "animal", []),
        ("loki/image/person/4.jpg", FAKE, "human", []),
    ]
    assert unusable == [("loki", "image/medicine/3.jpg", "named in true_or_false.json but missing")]
    file = tmp_path / "data_json/image/true_or_false.json"
    rows = json.loads(file.read_text())
    rows[1]["question_type"] = "image_tf_image_real_ask_fake_sence"
    file.write_text(json.dumps(rows))
    with pytest.raises(UserError, match="called both"):
        list(loki.read(tmp_path))


def test_m6doc_reads_pages_of_the_three_types(tmp_path: Path) -> None:
    records, unusable = parted(m6doc.read(m6doc_tree(tmp_path)))
    assert sorted(r.id for r in records) == ["doc/real/0001.jpg", "doc/real/magazine_7.jpg"]
    assert {(r.label, r.category, r.source) for r in records} == {(REAL, "doc", "doc")}
    assert unusable == [("m6doc", "test2017/0003.jpg", "named in the JSON but missing")]
    assert len(parted(m6doc.read(tmp_path, styles=None))[0]) == 3


def test_m6doc_understands_both_names_of_its_last_file_and_folder(tmp_path: Path) -> None:
    m6doc_tree(tmp_path)
    annotations = tmp_path / "annotations"
    (annotations / "instances_test2017.json").rename(annotations / "instances_test.json")
    put(tmp_path, {"test2017/0003.jpg": picture(4)})
    assert "doc/real/0003.jpg" in [r.id for r in m6doc.read(tmp_path)]
    (tmp_path / "test2017").rename(tmp_path / "test")
    assert "doc/real/0003.jpg" in [r.id for r in m6doc.read(tmp_path)]


def test_m6doc_layouts(tmp_path: Path) -> None:
    page = next(p for p in m6doc.pages(m6doc_tree(tmp_path)) if p.file.name == "0001.jpg")
    assert page.style == "newspaper"
    boxes = {block.kind: block.box for block in page.layout}
    assert boxes["title"] == pytest.approx((0.1, 0.1, 0.9, 0.2))
    assert boxes["text"] == pytest.approx((0.55, 0.25, 1.0, 0.75)), "clipped at the page's edge"
    assert {p.file.name for p in m6doc.usable_layouts(tmp_path)} == {"0001.jpg", "0003.jpg"}
    assert len(set(m6doc.CATEGORIES)) == 75
    assert (m6doc.CATEGORIES[1], m6doc.CATEGORIES[74]) == ("QR code", "weather forecast")


@pytest.mark.parametrize(
    ("file", "classes", "style"),
    [
        ("test paper 12.jpg", ["section title"], None),
        ("x.jpg", ["section title", "institute", "paragraph"], "paper"),
        ("x.jpg", ["drop cap", "paragraph"], "magazine"),
        ("x.jpg", ["paragraph"], None),
    ],
)
def test_page_style(file: str, classes: list[str], style: str | None) -> None:
    assert m6doc.page_style(file, classes) == style


@pytest.mark.parametrize("corpus", ["genimage", "chameleon", "cvusa", "vigor", "dmimage", "loki", "m6doc"])
def test_a_missing_or_empty_corpus_is_named_with_where_to_get_it(tmp_path: Path, corpus: str) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError) as error:
            list(READERS[corpus].read(folder))
        assert corpus in error.value.what.lower()
        assert str(folder) in error.value.what
        assert "http" in error.value.cure


# ── images and lists ──────────────────────────────────────────────────────────────────────────────────────


def record(data: bytes) -> Record:
    return Record("x/a.jpg", data, REAL, "x")


def test_decoding_fills_the_size() -> None:
    good = record(picture(1, size=(31, 17)))
    image = decoded(good)
    assert (good.width, good.height) == image.size == (31, 17)
    assert image.tobytes() == good.pil().tobytes(), "usable after the file is closed"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html></html>", "^not a known image format$"),
        (picture(1)[:200], "(?i)truncated"),
        (picture(1)[:-300], "(?i)truncated"),
        (picture(1, "PNG")[:400], "(?i)truncated|broken"),
    ],
)
def test_broken_images_are_told_apart(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decoded(record(data))


def test_json_in_any_encoding(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        file.write_bytes(json.dumps({"ä": 1}, ensure_ascii=False).encode(encoding))
        assert need_json(file, "X", "get it", dict) == {"ä": 1}
    for content, problem in (("{broken", r"a\.json is not readable JSON"), ("null", "holds no list")):
        file.write_text(content)
        with pytest.raises(UserError, match=problem):
            need_json(file, "X", "get it")


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "disk", {f"train/ai/{n}.png": picture(n) for n in range(3)})
    (tmp_path / "root").mkdir()
    (tmp_path / "root/ADM").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/up").symlink_to(tmp_path / "disk")  # a link without end
    assert count_images(tmp_path / "root") == len(images(tmp_path / "root")) == 3


# ── macOS's companions of copied files (`._000.mp4`) ──────────────────────────────────────────────────────


def companion(file: Path) -> None:
    file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xff\xfe")


@pytest.mark.parametrize("corpus", [key for key in READERS if key != "fakeclue"])
def test_a_corpus_with_companions_is_the_same_corpus(tmp_path: Path, corpus: str) -> None:
    root, faces = tmp_path / corpus, ROOT / "embedded/ffpp"
    options = {"ffpp": [1], "ddvqa": [faces, 1]}.get(corpus, [])

    def state() -> tuple:
        report = verify.lines(verify.verify(corpus, root, faces))
        return list(READERS[corpus].read(root, *options)), report, count(corpus, root, 1), count_images(root)

    shutil.copytree(ROOT / "embedded" / corpus, root, copy_function=lambda s, d: Path(d).symlink_to(s))
    before = state()
    for file in [p for p in root.rglob("*") if p.is_file()]:
        companion(file)
    assert state() == before
    assert before[0]


def test_a_companion_of_a_frame_or_an_archive_is_none(tmp_path: Path) -> None:
    frame = "original_sequences/youtube/c23/frames/000/000.png"
    for name in (frame, "test.zip"):
        put(tmp_path, {name: b"content"})
        companion(tmp_path / name)
    assert ffpp.video_frames(tmp_path, None, "000", 2) == ([("000.png", b"content")], [])
    assert "still packed: test.zip;" in "\n".join(verify.lines(verify.verify("chameleon", tmp_path)))

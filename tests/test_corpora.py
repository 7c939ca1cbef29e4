"""Readers of still-image corpora, on tiny trees in the corpora's real layouts and file formats."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakevlm.data.corpora import chameleon, cvusa, dmimage, genimage, loki, m6doc, vigor
from fakevlm.data.corpora.files import BadImage, Quarantine, decoded, need_json
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError


def picture(seed: int, form: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=form)
    return out.getvalue()


def put(file: Path, data: bytes | str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)


def test_genimage_reads_official_and_unpacked_folder_names(tmp_path: Path) -> None:
    put(tmp_path / "ADM/train/ai/416_adm_45.PNG", picture(1, "PNG"))
    put(tmp_path / "ADM/train/nature/n02099601_123.JPEG", picture(2))
    put(tmp_path / "Stable Diffusion V1.4/imagenet_ai_0419_sdv4/val/ai/033_sdv4_00134.png", picture(3, "PNG"))
    put(tmp_path / "Midjourney/val/nature/ILSVRC2012_val_00000293.JPEG", picture(4))
    put(tmp_path / "Midjourney/val/nature/readme.txt", "not an image")
    put(tmp_path / "unrelated/train/ai/x.png", picture(5, "PNG"))
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
    ("folder", "generator"),
    [
        ("Midjourney", "midjourney"),
        ("imagenet_midjourney", "midjourney"),
        ("VQDM", "vqdm"),
        ("imagenet_ai_0419_vqdm", "vqdm"),
        ("Wukong", "wukong"),
        ("imagenet_ai_0424_wukong", "wukong"),
        ("Stable Diffusion V1.4", "sdv1.4"),
        ("stable_diffusion_v_1_4", "sdv1.4"),
        ("imagenet_ai_0419_sdv4", "sdv1.4"),
        ("Stable Diffusion V1.5", "sdv1.5"),
        ("imagenet_ai_0424_sdv5", "sdv1.5"),
        ("GLIDE", "glide"),
        ("imagenet_glide", "glide"),
        ("BigGAN", "biggan"),
        ("imagenet_ai_0419_biggan", "biggan"),
        ("ADM", "adm"),
        ("imagenet_ai_0508_adm", "adm"),
        ("train", None),
    ],
)
def test_genimage_generator_names(folder: str, generator: str | None) -> None:
    assert genimage.generator_of(folder) == generator


def test_chameleon(tmp_path: Path) -> None:
    put(tmp_path / "test/0_real/b.jpg", picture(1))
    put(tmp_path / "test/0_real/a.jpg", picture(2))
    put(tmp_path / "test/1_fake/0b5a.png", picture(3, "PNG"))
    records = list(chameleon.read(tmp_path))
    assert [(r.id, r.label) for r in records] == [
        ("chameleon/real/a.jpg", REAL),
        ("chameleon/real/b.jpg", REAL),
        ("chameleon/fake/0b5a.png", FAKE),
    ]
    assert [r.id for r in chameleon.read(tmp_path / "test")] == [r.id for r in records]


def test_cvusa_reads_what_its_splits_list(tmp_path: Path) -> None:
    rows = "bingmap/19/{0}.jpg,streetview/panos/{0}.jpg,streetview/annotations/{0}.png\n"
    put(tmp_path / "splits/train-19zl.csv", rows.format("0000044") + rows.format("0000099"))
    put(tmp_path / "splits/val-19zl.csv", rows.format("0000001"))
    for name in ("0000044", "0000001", "0000777"):  # the last is listed nowhere
        put(tmp_path / f"bingmap/19/{name}.jpg", picture(int(name)))
    quarantine = Quarantine()
    records = list(cvusa.read(tmp_path, quarantine))
    assert [r.id for r in records] == ["satellite/real/0000044.jpg", "satellite/real/0000001.jpg"]
    assert {(r.label, r.category, r.source) for r in records} == {(REAL, "satellite", "satellite")}
    assert quarantine.rows == [("cvusa", "bingmap/19/0000099.jpg", "listed in splits but missing")]


def test_cvusa_without_splits_reads_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "bingmap/19/0000002.jpg", picture(1))
    assert [r.id for r in cvusa.read(tmp_path)] == ["satellite/real/0000002.jpg"]


def test_vigor_reads_aerial_images_only(tmp_path: Path) -> None:
    name = "satellite_41.87337878187409_-87.69119741060825.png"
    put(tmp_path / "Chicago/satellite" / name, picture(1, "PNG"))
    put(tmp_path / "Chicago/panorama/8GIqesI3QHS9IHfbcIzGaA,41.887583,-87.648761,.jpg", picture(2))
    put(tmp_path / "splits/Chicago/satellite_list.txt", name + "\n")
    records = list(vigor.read(tmp_path))
    assert vigor._place("Seattle", "satellite_47.6112345_-122.3187654") == "vigor/Seattle/47.61,-122.32"
    assert vigor._place("Seattle", "satellite_1") is None, "then each is an item of its own"
    assert [(r.id, r.label, r.category) for r in records] == [(f"satellite/real/{name}", REAL, "satellite")]


def test_dmimage(tmp_path: Path) -> None:
    put(tmp_path / "real_coco_valid/000000000139.jpg", picture(1))
    put(tmp_path / "biggan_256/00001.png", picture(2, "PNG"))
    put(tmp_path / "progan_lsun/airplane/00002.png", picture(3, "PNG"))
    records = list(dmimage.read(tmp_path))
    assert [(r.id, r.label, r.generator) for r in records] == [
        ("dmimage/fake/biggan_256/00001.png", FAKE, "biggan_256"),
        ("dmimage/fake/progan_lsun/airplane/00002.png", FAKE, "progan_lsun"),
        ("dmimage/real/real_coco_valid/000000000139.jpg", REAL, None),
    ]


def test_dmimage_wants_real_images(tmp_path: Path) -> None:
    put(tmp_path / "biggan_256/00001.png", picture(2, "PNG"))
    with pytest.raises(UserError, match=r"no real_\* folder"):
        list(dmimage.read(tmp_path))


def loki_tree(root: Path) -> None:
    def asked(path: str, kind: str, category: str) -> list[dict]:
        return [
            {
                "image_path": path,
                "question": f"Is it {way}?",
                "answer": "Yes" if way == kind else "No",
                "metric": "open-ended",
                "modality": "image-text",
                "question_type": f"image_tf_image_{kind}_ask_{way}_{category}",
                "choices": None,
                "id": 1,
            }
            for way in ("real", "fake")
        ]

    rows = [
        *asked("image/sence/1.jpg", "fake", "sence"),
        *asked("./image/animals/2.png", "real", "animals"),
        *asked("image/medicine/3.jpg", "real", "medicine"),
        *asked("image/person/4.jpg", "fake", "person"),
    ]
    put(root / "data_json/image/true_or_false.json", json.dumps(rows))
    problems = {
        "global": [{"desc": "Das Ganze wirkt künstlich"}],
        "regional": [{"region": [1, 2, 3, 4], "desc": "Six fingers."}, {"region": [0, 0, 1, 1], "desc": ""}],
    }
    described = [
        {"image_path": "image/sence/1.jpg", "problems": problems},
        {"image_path": "image/person/4.jpg", "problems": {"global": [{"desc": ""}], "regional": []}},
    ]
    put(
        root / "data_json/image/open_ended_vqa.json",
        json.dumps(described, ensure_ascii=False).encode("utf-16"),
    )
    put(root / "image/sence/1.jpg", picture(1))
    put(root / "image/animals/2.png", picture(2, "PNG"))
    put(root / "image/person/4.jpg", picture(4))


def test_loki_joins_both_questions_and_reads_utf16(tmp_path: Path) -> None:
    loki_tree(tmp_path)
    quarantine = Quarantine()
    records = list(loki.read(tmp_path, quarantine))
    assert [(r.id, r.label, r.category) for r in records] == [
        ("loki/image/sence/1.jpg", FAKE, "scene"),
        ("loki/image/animals/2.png", REAL, "animal"),
        ("loki/image/person/4.jpg", FAKE, "human"),
    ]
    assert records[0].references == ["Das Ganze wirkt künstlich. Six fingers."]
    assert records[1].references == records[2].references == []
    assert quarantine.rows == [("loki", "image/medicine/3.jpg", "named in true_or_false.json but missing")]


def test_loki_rows_that_disagree_are_an_error(tmp_path: Path) -> None:
    loki_tree(tmp_path)
    file = tmp_path / "data_json/image/true_or_false.json"
    rows = json.loads(file.read_text())
    rows[1]["question_type"] = "image_tf_image_real_ask_fake_sence"
    file.write_text(json.dumps(rows))
    with pytest.raises(UserError, match="called both"):
        list(loki.read(tmp_path))


def m6doc_tree(root: Path, last: str = "instances_test2017") -> None:
    categories = [{"id": n, "name": name, "supercategory": ""} for n, name in enumerate(m6doc.CATEGORIES)]
    number = {name: n for n, name in enumerate(m6doc.CATEGORIES)}

    def coco(pages: dict[str, list[tuple[str, list[float]]]]) -> str:
        images, annotations = [], []
        for n, (name, boxes) in enumerate(pages.items(), 1):
            images.append({"id": n, "file_name": name, "width": 200, "height": 400})
            for kind, bbox in boxes:
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": n,
                        "category_id": number[kind],
                        "bbox": bbox,
                        "iscrowd": 0,
                    }
                )
        return json.dumps(
            {"images": images, "annotations": annotations, "categories": categories, "type": "x"}
        )

    news = [
        ("headline", [20, 40, 160, 40]),
        ("figure", [20, 100, 80, 100]),
        ("paragraph", [110, 100, 180, 200]),
    ]
    exam = [
        ("first-level question number", [0, 0, 9, 9]),
        ("option", [9, 9, 90, 9]),
        ("headline", [0, 50, 90, 9]),
    ]
    put(root / "annotations/instances_train2017.json", coco({"0001.jpg": news, "0002.jpg": exam}))
    put(root / "annotations/instances_val2017.json", coco({"magazine_7.jpg": [("paragraph", [0, 0, 9, 9])]}))
    put(root / f"annotations/{last}.json", coco({"0003.jpg": news}))
    put(root / "train2017/0001.jpg", picture(1))
    put(root / "train2017/0002.jpg", picture(2))
    put(root / "val2017/magazine_7.jpg", picture(3))
    (root / "test2017").mkdir()


@pytest.mark.parametrize("last", ["instances_test2017", "instances_test"])
def test_m6doc_reads_pages_of_the_three_types(tmp_path: Path, last: str) -> None:
    m6doc_tree(tmp_path, last)
    quarantine = Quarantine()
    records = list(m6doc.read(tmp_path, quarantine))
    assert sorted(r.id for r in records) == ["doc/real/0001.jpg", "doc/real/magazine_7.jpg"]
    assert {(r.label, r.category, r.source) for r in records} == {(REAL, "doc", "doc")}
    assert quarantine.rows == [("m6doc", "test2017/0003.jpg", "named in the JSON but missing")]
    assert len(list(m6doc.read(tmp_path, styles=None))) == 3


def test_m6doc_with_its_last_folder_under_either_name(tmp_path: Path) -> None:
    m6doc_tree(tmp_path)
    (tmp_path / "test2017").rename(tmp_path / "test")
    put(tmp_path / "test/0003.jpg", picture(4))
    assert "doc/real/0003.jpg" in [r.id for r in m6doc.read(tmp_path)]


def test_m6doc_layouts(tmp_path: Path) -> None:
    m6doc_tree(tmp_path)
    page = next(p for p in m6doc.pages(tmp_path) if p.file.name == "0001.jpg")
    assert page.style == "newspaper"
    kinds = {block.kind: block.box for block in page.layout}
    assert kinds["title"] == pytest.approx((0.1, 0.1, 0.9, 0.2))
    assert kinds["text"] == pytest.approx((0.55, 0.25, 1.0, 0.75)), "clipped at the page's edge"
    assert {p.file.name for p in m6doc.usable_layouts(tmp_path)} == {"0001.jpg", "0003.jpg"}


def test_m6doc_has_its_74_classes() -> None:
    assert len(m6doc.CATEGORIES) == 75
    assert len(set(m6doc.CATEGORIES)) == 75
    assert m6doc.CATEGORIES[1] == "QR code"
    assert m6doc.CATEGORIES[49] == "paragraph"
    assert m6doc.CATEGORIES[74] == "weather forecast"


def test_page_style() -> None:
    assert m6doc.page_style("test paper 12.jpg", ["section title"]) is None
    assert m6doc.page_style("x.jpg", ["section title", "institute", "paragraph"]) == "paper"
    assert m6doc.page_style("x.jpg", ["drop cap", "paragraph"]) == "magazine"
    assert m6doc.page_style("x.jpg", ["paragraph"]) is None


@pytest.mark.parametrize(
    ("read", "corpus"),
    [
        (genimage.read, "GenImage"),
        (chameleon.read, "Chameleon"),
        (cvusa.read, "CVUSA"),
        (vigor.read, "VIGOR"),
        (dmimage.read, "DMimage"),
        (loki.read, "LOKI"),
        (m6doc.read, "M6Doc"),
    ],
)
def test_a_missing_corpus_is_named_with_where_to_get_it(tmp_path: Path, read, corpus: str) -> None:
    with pytest.raises(UserError) as error:
        list(read(tmp_path / "nowhere"))
    assert corpus in error.value.what
    assert "nowhere" in error.value.what
    assert "http" in error.value.cure


@pytest.mark.parametrize("read", [genimage.read, vigor.read, chameleon.read])
def test_an_empty_folder_is_an_error_too(tmp_path: Path, read) -> None:
    with pytest.raises(UserError, match=r"https://github\.com"):
        list(read(tmp_path))


def record(data: bytes) -> Record:
    return Record("x/a.jpg", data, REAL, "x", "x/a.jpg")


def test_decoding_fills_the_size() -> None:
    good = record(picture(1, size=(31, 17)))
    image = decoded(good)
    assert (good.width, good.height) == image.size == (31, 17)
    assert image.convert("RGB").tobytes() == good.pil().tobytes(), "usable after the file is closed"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html></html>", "not a known image format"),
        (picture(1)[:200], "(?i)truncated"),
        (picture(1)[:-300], "(?i)truncated"),
        (picture(1, "PNG")[:400], "(?i)truncated|broken"),
    ],
)
def test_broken_images_are_told_apart(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decoded(record(data))


def test_the_reason_is_the_same_in_every_run() -> None:
    with pytest.raises(BadImage) as error:
        decoded(record(b"<html>"))
    assert "0x" not in str(error.value)


def test_json_in_any_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        put(tmp_path / "a.json", json.dumps({"ä": 1}, ensure_ascii=False).encode(encoding))
        assert need_json(tmp_path / "a.json", "X", "get it", dict) == {"ä": 1}
    put(tmp_path / "a.json", "{broken")
    with pytest.raises(UserError, match=r"a\.json is not readable JSON"):
        need_json(tmp_path / "a.json", "X", "get it")
    put(tmp_path / "a.json", "null")
    with pytest.raises(UserError, match="holds no list"):
        need_json(tmp_path / "a.json", "X", "get it")

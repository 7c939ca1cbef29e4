"""`collect.at_most` draws the same images in every run, and does not read the others."""

import json
from pathlib import Path

import pytest

from fakevlm.collection.amounts import drawn
from fakevlm.collection.collect import collect
from fakevlm.data.corpora import chameleon, cvusa, genimage, m6doc, vigor
from fakevlm.data.records import Record, read_frame
from test_corpora import m6doc_tree
from test_corpora_collect import picture, put, settings

MANY = 30


def trees(root: Path) -> None:
    """Small corpora in their layouts, all images of different content."""
    for n in range(MANY):
        put(root / f"genimage/ADM/train/ai/{n}_adm_{n}.PNG", picture(n))
        put(root / f"genimage/ADM/train/nature/n02099601_{n}.JPEG", picture(100 + n))
        put(root / f"chameleon/test/0_real/{n}.jpg", picture(200 + n))
        put(root / f"chameleon/test/1_fake/deep/{n}.jpg", picture(300 + n))
        put(root / f"cvusa/bingmap/19/{n:07d}.jpg", picture(400 + n))
        put(root / f"vigor/Chicago/satellite/satellite_41.{n:03d}_-87.1.png", picture(500 + n))
    m6doc_tree(root / "m6doc")
    pages = [{"id": n, "file_name": f"newspaper_{n}.jpg", "width": 30, "height": 20} for n in range(MANY)]
    coco = json.dumps({"images": pages, "annotations": [], "categories": []})
    put(root / "m6doc/annotations/instances_val2017.json", coco.encode())
    for n in range(MANY):
        put(root / f"m6doc/val2017/newspaper_{n}.jpg", picture(600 + n))


READERS = {
    "genimage": genimage.read,
    "chameleon": chameleon.read,
    "cvusa": lambda root, chosen: cvusa.read(root, None, chosen),
    "vigor": vigor.read,
    "m6doc": lambda root, chosen: m6doc.read(root, drawn=chosen),
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that were read, as they are read."""
    names: list[Path] = []
    read = Path.read_bytes

    def noted(file: Path) -> bytes:
        if file.suffix != ".json":
            names.append(file)
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", noted)
    return names


@pytest.mark.parametrize("corpus", READERS)
def test_what_is_not_drawn_is_not_read(tmp_path: Path, reads: list[Path], corpus: str) -> None:
    trees(tmp_path)
    whole: list[Record] = list(READERS[corpus](tmp_path / corpus, None))
    assert len(reads) == len(whole) >= MANY
    reads.clear()
    asked: list[str] = []

    def chosen(id: str) -> bool:
        asked.append(id)
        return drawn(id, 0.2, 17)

    part = list(READERS[corpus](tmp_path / corpus, chosen))
    assert asked == [record.id for record in whole], "the lot is of the record's own id"
    assert part == [record for record in whole if drawn(record.id, 0.2, 17)]
    assert 0 < len(part) == len(reads) < len(whole)


@pytest.mark.parametrize("corpus", READERS)
def test_thinning_draws_the_ids_that_the_lot_names(tmp_path: Path, reads: list[Path], corpus: str) -> None:
    trees(tmp_path)

    def collected(at_most: dict[str, int]) -> list[str]:
        found = collect(settings(**{corpus: tmp_path / corpus}, at_most=at_most), tmp_path / "out")
        lost = found.quarantine["path"].tolist()
        assert lost == (["test2017/0003.jpg"] if corpus == "m6doc" else []), "drawn or not"
        return list(read_frame(tmp_path / "out" / "records")["id"])

    whole = collected({})
    total, most = len(whole) + (corpus == "m6doc"), 9  # with the page that is named and missing
    reads.clear()
    assert collected({corpus: most}) == [id for id in whole if drawn(id, most / total, settings().seed)]
    assert len(reads) < len(whole)


def test_the_bar_of_a_thinned_corpus_ends_near_its_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees(tmp_path)
    totals: dict[str, int | None] = {}

    def track(items, what: str, total: int | None = None):
        totals[what] = total
        return items

    monkeypatch.setattr("fakevlm.collection.collect.track", track)
    places = {corpus: tmp_path / corpus for corpus in READERS}
    collect(settings(**places, at_most={"genimage": 12, "vigor": 6}), tmp_path / "out")
    assert totals == {"genimage": 12, "vigor": 6, "chameleon": 60, "cvusa": 30, "m6doc": MANY + 2}

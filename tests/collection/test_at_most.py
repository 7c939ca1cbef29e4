"""`collect.at_most` draws the same images in every run, and does not read the others."""

import json
from pathlib import Path

import pytest

from fakevlm.collection.amounts import drawn
from fakevlm.collection.collect import collect
from fakevlm.data.records import read_frame
from smallcorpora import m6doc_tree, picture, put, settings

MANY = 30
# By corpus, the paths of its images.
PATTERNS = {
    "genimage": ["ADM/train/ai/{0}_adm_{0}.PNG", "ADM/train/nature/n02099601_{0}.JPEG"],
    "chameleon": ["test/0_real/{0}.jpg", "test/1_fake/deep/{0}.jpg"],
    "cvusa": ["bingmap/19/{0:07d}.jpg"],
    "vigor": ["Chicago/satellite/satellite_41.{0:03d}_-87.1.png"],
    "m6doc": ["val2017/newspaper_{0}.jpg"],
}


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """Small corpora in their layouts, all images of different content."""
    m6doc_tree(tmp_path / "m6doc")
    pages = [{"id": n, "file_name": f"newspaper_{n}.jpg", "width": 30, "height": 20} for n in range(MANY)]
    coco = json.dumps({"images": pages, "annotations": [], "categories": []})
    put(tmp_path, {"m6doc/annotations/instances_val2017.json": coco})
    every = [f"{corpus}/{pattern}" for corpus, patterns in PATTERNS.items() for pattern in patterns]
    for k, pattern in enumerate(every):
        put(tmp_path, {pattern.format(n): picture(100 * k + n) for n in range(MANY)})
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that are read."""
    files, read = [], Path.read_bytes

    def noted(file: Path) -> bytes:
        files.extend([file] * (file.suffix != ".json"))
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", noted)
    return files


@pytest.mark.parametrize("corpus", PATTERNS)
def test_thinning_draws_by_id_and_seed(trees: Path, reads: list[Path], corpus: str) -> None:
    def collected(at_most: dict[str, int], seed: int = 17) -> list[str]:
        params = settings(**{corpus: trees / corpus}, at_most=at_most).model_copy(update={"seed": seed})
        results = collect(params, trees / "out")
        missing = results.quarantine["path"].tolist()
        assert missing == (["test2017/0003.jpg"] if corpus == "m6doc" else []), "drawn or not"
        return list(read_frame(trees / "out" / "records")["id"])

    everything = collected({})
    total = len(everything) + (corpus == "m6doc")  # with the page that is named and missing
    assert collected({corpus: total}) == collected({"ffpp": 1}) == everything
    reads.clear()
    few = collected({corpus: 9})
    assert few == [id for id in everything if drawn(id, 9 / total, 17)]
    assert len(reads) == len(few) < len(everything), "only drawn images are read"
    assert set(few) < set(collected({corpus: 20})), "more of them hold the fewer"
    assert collected({corpus: 9}, seed=4) != few

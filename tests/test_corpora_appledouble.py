"""macOS's companions of copied files (`._000.mp4`) are no images, videos, lists or archives."""

import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from fakevlm.collection.amounts import expected
from fakevlm.data.corpora import chameleon, cvusa, ddvqa, dmimage, ffpp, genimage, loki, m6doc, vigor
from fakevlm.data.corpora.files import Quarantine, count_images
from fakevlm.tools import verify

READERS = {
    "genimage": lambda root, _: genimage.read(root),
    "ffpp": lambda root, quarantine: ffpp.read(root, 1, quarantine),
    "chameleon": lambda root, _: chameleon.read(root),
    "cvusa": cvusa.read,
    "vigor": lambda root, _: vigor.read(root),
    "m6doc": m6doc.read,
    "loki": loki.read,
    "dmimage": lambda root, _: dmimage.read(root),
    "ddvqa": lambda root, quarantine: ddvqa.read(root, ROOT / "embedded/ffpp", 1, quarantine=quarantine),
}


def companion(file: Path) -> None:
    file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        \xff\xfe")


@pytest.mark.parametrize("corpus", READERS)
def test_a_corpus_with_companions_is_the_same_corpus(tmp_path: Path, corpus: str) -> None:
    """All that is listed is the same, and what is counted too."""
    root = tmp_path / corpus

    def seen() -> tuple:
        quarantine = Quarantine()
        ids = [(record.id, record.sha256) for record in READERS[corpus](root, quarantine)]
        report = verify.verify(corpus, root, ROOT / "embedded/ffpp")
        counts = expected(corpus, root, 1), count_images(root)
        return ids, quarantine.rows, verify.lines(report), counts

    shutil.copytree(ROOT / "embedded" / corpus, root, copy_function=lambda s, d: Path(d).symlink_to(s))
    before = seen()
    for file in [p for p in root.rglob("*") if p.is_file()]:
        companion(file)
    assert seen() == before
    assert before[0]


def test_a_companion_of_an_extracted_frame_is_no_frame(tmp_path: Path) -> None:
    place = tmp_path / "original_sequences/youtube/c23/frames/000"
    place.mkdir(parents=True)
    (place / "000.png").write_bytes(b"a frame")
    companion(place / "000.png")
    assert ffpp.video_frames(tmp_path, None, "000", 2) == [("000.png", b"a frame")]


def test_a_companion_of_an_archive_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "test.zip").write_bytes(b"PK")
    companion(tmp_path / "test.zip")
    told = "\n".join(verify.lines(verify.verify("chameleon", tmp_path)))
    assert "still packed: test.zip;" in told

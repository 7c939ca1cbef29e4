"""A collection that is killed: what took long is not made again, and what comes out is the same."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from fakevlm import paths
from fakevlm.cache import Cache
from fakevlm.collection.collect import collect
from fakevlm.collection.frames import FrameCache
from fakevlm.data.corpora import ffpp
from fakevlm.data.corpora.files import Quarantine, file_stamp
from fakevlm.prefetch import prefetch
from test_corpora_collect import settings
from test_corpora_faces import ddvqa_tree, film, tree
from test_faces import LANDMARKS, landmarks_beside


def test_many_threads_keep_the_order_and_take_no_more_than_they_need() -> None:
    taken, slow = [], threading.Event()

    def items():
        for n in range(9):
            taken.append(n)
            yield n

    def work(n: int) -> int:
        if n == 0:
            assert slow.wait(10), "the others are done meanwhile"
        if n == 2:
            slow.set()
        return n * n

    made = prefetch(work, items(), threads=3)
    assert next(made) == 0
    assert taken == [0, 1, 2, 3]
    assert list(made) == [n * n for n in range(1, 9)]


def test_an_error_comes_in_its_turn_and_nobody_waits_for_what_follows() -> None:
    done = []

    def work(n: int) -> int:
        done.append(n)
        return 1 // (n - 3)

    made = prefetch(work, range(1000), threads=2)
    assert [next(made) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert len(done) < 10


def test_a_killed_collection_decodes_no_video_twice(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / "ffpp")
    ddvqa_tree(tmp_path / "ddvqa")
    params = settings(ffpp=tmp_path / "ffpp", ddvqa=tmp_path / "ddvqa", frames_per_video=2)
    collect(params, tmp_path / "whole")
    assert (paths.work() / "collect.sqlite").is_file(), "what follows in the notebook may fail"
    shutil.rmtree(paths.work())
    decode, decoded = ffpp.decode, []

    def frames(file: Path, *rest):
        if len(decoded) == 7:
            raise KeyboardInterrupt
        decoded.append(file)
        return decode(file, *rest)

    monkeypatch.setattr(ffpp, "decode", frames)
    with pytest.raises(KeyboardInterrupt):
        collect(params, tmp_path / "out")
    first, decoded[:] = set(decoded), [Path()] * 100
    collect(params, tmp_path / "out")
    assert len(first) == 7
    assert not first & set(decoded)
    assert len(decoded) == 100 + len(list((tmp_path / "ffpp").rglob("*.mp4"))) - 7, "nor for the benchmarks"
    for file in (tmp_path / "whole").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "whole")).read_bytes()


def test_what_has_changed_or_was_not_good_is_decoded_again(tmp_path: Path) -> None:
    tree(tmp_path)
    videos = tmp_path / "original_sequences/youtube/c23/videos"
    landmarks_beside(videos, "000", (0, 8))
    values, crop = Cache(None), ffpp_crop()
    frames = FrameCache(values, "settings")

    def read(wanted: int, **rest) -> tuple[list[str], int]:
        quarantine = Quarantine()
        found = ffpp.video_frames(tmp_path, None, "000", wanted, quarantine, frames=frames, **rest)
        return [name for name, _ in found], len(quarantine)

    assert read(3, crop=crop) == (["000.png", "008.png"], 1)
    assert len(values) == 0, "someone may yet bring the landmarks of frame 4"
    landmarks = videos.parent / "landmarks/000"
    shutil.copy(landmarks / "000.npy", landmarks / "004.npy")
    assert read(3, crop=crop) == (["000.png", "004.png", "008.png"], 0)
    assert len(values) == 1
    np.save(landmarks / "004.npy", np.load(landmarks / "004.npy") + 1)
    (landmarks / "004.npy").touch()
    read(3, crop=crop)
    assert len(values) == 2
    read(2)
    assert read(3) == (["000.png", "004.png", "008.png"], 0)
    assert len(values) == 4
    before = file_stamp(videos / "000.mp4")
    film(videos / "000.mp4", 5)
    assert file_stamp(videos / "000.mp4") != before
    assert read(3) == (["000.png", "002.png", "004.png"], 0)
    assert file_stamp(videos / "999.mp4") is None


def ffpp_crop():
    from fakevlm.data.corpora.faces import make_cropper

    return make_cropper(LANDMARKS)

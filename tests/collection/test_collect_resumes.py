"""A collection that is killed: nothing slow is done again, and the results are the same."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from fakevlm import paths
from fakevlm.cache import Cache
from fakevlm.collection.collect import collect
from fakevlm.config.params import FaceCrop
from fakevlm.data.corpora import ffpp
from fakevlm.data.corpora.faces import make_cropper
from fakevlm.prefetch import prefetch
from smallcorpora import ddvqa_tree, ffpp_tree, film, landmarks_tree, settings
from smallworld import content


def test_prefetch_keeps_the_order_takes_no_more_than_it_needs_and_raises_an_error_in_its_turn() -> None:
    taken, slow = [], threading.Event()

    def items():
        for n in range(1000):
            taken.append(n)
            yield n

    def work(n: int) -> float:
        if n == 0:
            assert slow.wait(10), "the others are done meanwhile"
        if n == 2:
            slow.set()
        return 1 / (n - 6)

    results = prefetch(work, items(), threads=3)
    assert next(results) == -1 / 6
    assert taken == [0, 1, 2, 3]
    assert [next(results) for _ in range(5)] == [1 / (n - 6) for n in range(1, 6)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(taken) < 15


def test_a_killed_collection_decodes_no_video_twice(project: Path, tmp_path: Path, monkeypatch) -> None:
    folders = {"ffpp": ffpp_tree(tmp_path / "ffpp"), "ddvqa": ddvqa_tree(tmp_path / "ddvqa")}
    params = settings(**folders, frames_per_video=2)
    collect(params, tmp_path / "expected")
    assert (paths.work() / "collect.sqlite").is_file(), "the rest of the notebook may fail"
    shutil.rmtree(paths.work())
    decode, decoded = ffpp.frames, []

    def frames(file: Path, chosen: list[int]):
        if len(decoded) == 7 and not killed:
            killed.append(True)
            raise KeyboardInterrupt
        decoded.append(file)
        return decode(file, chosen)

    killed: list[bool] = []
    monkeypatch.setattr(ffpp, "frames", frames)
    with pytest.raises(KeyboardInterrupt):
        collect(params, tmp_path / "out")
    collect(params, tmp_path / "out")
    assert len(decoded) == len(set(decoded)) == len(list((tmp_path / "ffpp").rglob("*.mp4")))
    assert content(tmp_path / "out") == content(tmp_path / "expected")


def test_frames_are_decoded_again_if_anything_changed_or_was_missing(tmp_path: Path) -> None:
    videos = ffpp_tree(tmp_path) / "original_sequences/youtube/c23/videos"
    landmarks = landmarks_tree(videos, "000", (0, 8))
    values = Cache(None)
    crop = make_cropper(FaceCrop(detector="landmarks", score=0.9, size=16, scale=1.3))

    def read(wanted: int, **options) -> tuple[list[str], int, int]:
        """Names of the frames, how many are unusable, how many videos are in the cache."""
        pictures, unusable = ffpp.video_frames(tmp_path, None, "000", wanted, values=values, **options)
        return [name for name, _ in pictures], len(unusable), len(values)

    assert read(3, crop=crop) == (["000.png", "008.png"], 1, 0), "frame 4 may get its landmarks yet"
    shutil.copy(landmarks / "000.npy", landmarks / "004.npy")
    for _ in range(2):
        assert read(3, crop=crop) == (["000.png", "004.png", "008.png"], 0, 1)
    np.save(landmarks / "004.npy", np.load(landmarks / "004.npy") + 1)
    (landmarks / "004.npy").touch()
    assert read(3, crop=crop)[2] == 2
    other = make_cropper(FaceCrop(detector="landmarks", score=0.9, size=32, scale=1.3))
    assert read(3, crop=other)[2] == 3
    assert read(2)[2] == 4
    assert read(3) == (["000.png", "004.png", "008.png"], 0, 5)
    film(videos / "000.mp4", 5)
    assert read(3) == (["000.png", "002.png", "004.png"], 0, 6)

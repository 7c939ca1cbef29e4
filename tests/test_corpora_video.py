"""Videos whose header promises more frames than decode."""

from pathlib import Path

import pytest

from fakevlm.data.corpora import ffpp, video
from fakevlm.data.corpora.files import BadImage, Quarantine
from test_corpora_faces import film

LOST = "the video's header promises it, but it does not come"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A video of nine frames, of which its header makes eleven; its path below the corpus's folder."""
    name = "original_sequences/youtube/c23/videos/000.mp4"
    film(tmp_path / name, 9)
    count = video._count
    monkeypatch.setattr(video, "_count", lambda file: count(file) + 2)
    return name


def test_a_frame_that_does_not_come_is_named_and_the_others_are_taken(tmp_path: Path, place: str) -> None:
    quarantine = Quarantine()
    found = ffpp.video_frames(tmp_path, None, "000", 3, quarantine)
    assert [name for name, _ in found] == ["000.png", "005.png"]
    assert quarantine.rows == [("ff++", f"{place}#010", LOST)]
    taken = video.frames(tmp_path / place, video.numbers(tmp_path / place, 3))
    assert [number for number, _ in taken] == [0, 5], "nobody need be told"


@pytest.mark.parametrize(("number", "rows"), [("010", 1), ("005", 0)])
def test_a_good_video_of_which_only_one_frame_is_drawn(
    tmp_path: Path, place: str, number: str, rows: int
) -> None:
    quarantine = Quarantine()
    one = ffpp.frame_id(None, "000", f"{number}.png")
    found = ffpp.video_frames(tmp_path, None, "000", 3, quarantine, drawn=lambda id: id == one)
    assert len(found) == 1 - rows
    assert quarantine.rows == [("ff++", f"{place}#{number}", LOST)] * rows, "the video itself is good"


def test_a_video_of_which_nothing_decodes_is_without_frames(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Empty:
        streams = video.av.open(str(tmp_path / place)).streams

        def __enter__(self) -> "Empty":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def decode(self, video: int) -> list:
            return []

    monkeypatch.setattr(video, "_count", lambda file: 9)
    monkeypatch.setattr(video.av, "open", lambda file: Empty())
    for chosen in ([0, 4, 8], [8]):
        with pytest.raises(BadImage, match="video without frames"):
            video.frames(tmp_path / place, chosen)

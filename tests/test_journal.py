"""The journal: nothing is asked twice, not after a torn line, not after kill -9 in the middle of annotation."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.fakeclue import build
from fakevlm.annotation.prompts import label_prompt
from fakevlm.config.params import load_params
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.errors import UserError
from fakevlm.inference.journal import Journal
from fakevlm.inference.protocol import Outcome, Request
from served import kill_after_lines
from smallworld import content, make_world

PROMPT = label_prompt("animal", 0)


def request(**changes) -> Request:
    fields = {
        "id": "a.jpg",
        "path": "a.jpg",
        "image": b"pixels",
        "prompt": PROMPT,
        "model": "m",
        "revision": "r",
        "sampling": {"temperature": 0.0, "seed": 1},
    }
    return Request(**{**fields, **changes})


def test_key_is_what_decides_the_answer() -> None:
    key = request().key
    assert request(id="b.jpg", path="b.jpg").key == key, (
        "the same image under another name is the same question"
    )
    assert request(sampling={"seed": 1, "temperature": 0.0}).key == key
    changes = [
        {"image": b"other"},
        {"prompt": label_prompt("animal", 1)},
        {"prompt": label_prompt("animal", 0, tagged=True)},
        {"model": "n"},
        {"revision": "s"},
        {"sampling": {"temperature": 0.5, "seed": 1}},
    ]
    keys = {request(**change).key for change in changes}
    assert len(keys) == len(changes)
    assert key not in keys


def test_answers_survive_reopening_and_errors_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "journal.jsonl"
    failed, refused = request(image=b"2"), request(image=b"3")
    with Journal(file) as journal:
        assert journal.get(request()) is None
        journal.put(request(), Outcome("ok", "naïve ﬁnding\nover two lines"))
        journal.put(failed, Outcome("error", "timeout"))
        journal.put(refused, Outcome("refused", "no"))
        assert journal.get(failed) is None
    with Journal(file) as journal:
        assert journal.get(request()) == Outcome("ok", "naïve ﬁnding\nover two lines")
        assert journal.get(failed) is None
        assert journal.get(refused) == Outcome("refused", "no")
        assert len(journal) == 2
    assert len(file.read_text().splitlines()) == 3, "errors are kept for the record"


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_torn_last_line_is_cut_off_and_written_again(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.put(request(), Outcome("ok", "first"))
        journal.put(request(image=b"2"), Outcome("ok", "second"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    with Journal(file) as journal:
        assert journal.get(request()) == Outcome("ok", "first")
        assert journal.get(request(image=b"2")) is None
        journal.put(request(image=b"2"), Outcome("ok", "second"))
    assert file.read_bytes() == whole


def test_a_full_disk_leaves_no_piece_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, write, room = tmp_path / "journal.jsonl", os.write, [20, 0]

    def full(fd: int, data: bytes) -> int:
        if not room:
            return write(fd, data)
        if left := room.pop(0):
            return write(fd, data[:left])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(file) as journal:
        journal.put(request(), Outcome("ok", "first"))
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            journal.put(request(image=b"2"), Outcome("ok", "second"))
        assert journal.get(request(image=b"2")) is None
        # Another worker's answer, before it is cancelled; somebody made room meanwhile.
        journal.put(request(image=b"3"), Outcome("ok", "third"))
        assert journal.get(request(image=b"3")) == Outcome("ok", "third")
    with Journal(file) as journal:
        assert journal.get(request()) == Outcome("ok", "first")
        assert journal.get(request(image=b"2")) is None, "asked again by the next run"
        assert journal.get(request(image=b"3")) == Outcome("ok", "third")


def test_a_spoiled_line_inside_is_named(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file) as journal:
        journal.put(request(), Outcome("ok", "first"))
    file.write_bytes(b"\0\0\0\n" + file.read_bytes())
    with pytest.raises(UserError, match="line 1"):
        Journal(file)


def test_two_runs_cannot_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with Journal(file), pytest.raises(UserError, match="in use"):
        Journal(file)
    Journal(file).close()  # free again


CHILD = """
import asyncio, sys
from pathlib import Path
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.fakeclue import build
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.config.params import load_params

world, out, journal = map(Path, sys.argv[1:])
params = load_params("mini")
ground_truth = read_ground_truth(world / "collect/truth.jsonl")
annotators = make_annotators(params.annotate.annotators, ground_truth, params.seed)
for annotator in annotators:
    async def slowly(request, quick=annotator.annotate):
        await asyncio.sleep(0.02)
        return await quick(request)
    annotator.annotate = slowly
folders = {"collected": world / "collect", "categorized": world / "categorize"}
build(params, **folders, out=out, journal=journal, annotators=annotators)
"""


def annotate(world: Path, out: Path, journal: Path) -> list[str]:
    """Runs the stage in this process; returns the keys of the requests that reached an annotator."""
    params, asked = load_params("mini"), []
    ground_truth = read_ground_truth(world / "collect" / "truth.jsonl")
    annotators = make_annotators(params.annotate.annotators, ground_truth, params.seed)
    for annotator in annotators:

        async def counted(request, quick=annotator.annotate):
            asked.append(request.key)
            return await quick(request)

        annotator.annotate = counted
    build(
        params,
        collected=world / "collect",
        categorized=world / "categorize",
        out=out,
        journal=journal,
        annotators=annotators,
    )
    return asked


@pytest.mark.slow
def test_killed_in_the_middle_it_resumes_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    world = tmp_path / "world"
    make_world(world)
    journal, out = tmp_path / "killed" / "journal.jsonl", tmp_path / "killed" / "out"
    child = subprocess.Popen([sys.executable, "-c", CHILD, world, out, journal], stderr=subprocess.DEVNULL)
    kill_after_lines(child, journal, 40)
    left = journal.read_bytes()
    before = {json.loads(line)["key"] for line in left[: left.rfind(b"\n") + 1].splitlines()}
    assert not (out / "metrics.json").exists()
    journal.write_bytes(left + b'{"key": "torn in mid-wri')  # the worst moment, whatever this kill met

    undisturbed = annotate(world, tmp_path / "calm" / "out", tmp_path / "calm" / "journal.jsonl")
    asked = annotate(world, out, journal)

    assert 40 <= len(before) < len(undisturbed)
    assert len(set(undisturbed)) == len(undisturbed)
    assert not before & set(asked), "a journalled request was repeated"
    assert len(asked) + len(before) == len(undisturbed)
    assert content(out) == content(tmp_path / "calm" / "out")
    lines = [
        sorted((tmp_path / run / "journal.jsonl").read_text().splitlines()) for run in ("killed", "calm")
    ]
    assert lines[0] == lines[1]

    assert annotate(world, out, journal) == [], "a rerun asks nothing"
    assert content(out) == content(tmp_path / "calm" / "out")

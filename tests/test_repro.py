"""Stages side by side, in a throwaway project that DVC runs for real."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from dvc.repo import Repo

from conftest import killed_after
from fakevlm import repro
from fakevlm.errors import UserError

# `left` and `right` each wait until the other has begun.
PIPELINE = """
stages:
  first: {cmd: echo 1 > first, outs: [first]}
  left: {cmd: "touch l; until ls r; do sleep .1; done; cp first left", deps: [first], outs: [left]}
  right: {cmd: "touch r; until ls l; do sleep .1; done; cp first right", deps: [first], outs: [right]}
  last: {cmd: cat left right > last, deps: [left, right], outs: [last]}
"""


@pytest.mark.slow
def test_stages_run_side_by_side_and_a_failure_stops_the_rest(project: Path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "site"))
    Repo.init(no_scm=True)
    file = project / "dvc.yaml"
    file.write_text(PIPELINE.replace("right: {", "right: {meta: {seconds: 9}, "))
    (project / ".dvc/tmp/rwlock").touch()  # as a kill left it while DVC wrote
    for writes in range(4):  # Ctrl-C while DVC writes it
        with killed_after(writes, json, "dump"):
            repro.out_of_date([])
    needs = repro.out_of_date([])
    assert [*needs] == ["first", "right", "left", "last"]
    assert needs == {"first": set(), "left": {"first"}, "right": {"first"}, "last": {"left", "right"}}
    assert repro.run(needs, 2)
    assert (project / "last").read_text() == "1\n1\n"
    begun = [file.stat().st_mtime_ns for file in (project / "l", project / "r")]
    assert repro.out_of_date([]) == {}
    lock = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(lock[:20])  # as a kill leaves it
    assert repro.run(repro.out_of_date([]), 2)
    assert "dvc.lock was cut short" in capfd.readouterr().err
    assert yaml.safe_load((project / "dvc.lock").read_text()) == yaml.safe_load(lock)
    assert [file.stat().st_mtime_ns for file in (project / "l", project / "r")] == begun, "nothing ran again"
    failing = PIPELINE.replace("touch l", "touch m; exec sleep 200").replace("ls l", "ls m")
    file.write_text(failing.replace("cp first right", "exit 3"))
    assert repro.out_of_date(["left"]) == {"left": set()}
    capfd.readouterr()
    assert not repro.run(repro.out_of_date([]), 2)
    assert not (project / "left").exists()  # it was stopped
    assert capfd.readouterr().out.splitlines()[-1].startswith("right │ ERROR: failed to reproduce 'right'")
    with pytest.raises(UserError, match="nonsense"):
        repro.out_of_date(["nonsense"])
    monkeypatch.setattr("builtins.print", Mock(side_effect=BrokenPipeError))
    with pytest.raises(BrokenPipeError):  # `fakevlm repro | head -1`
        repro.run({"left": set()}, 2)

"""benchmarks/faults.py on one small stage: kills, a signal, flipped bytes."""

from concurrent.futures import Future
from math import inf
from pathlib import Path
from random import Random

import pytest
from dvc.repo import Repo

import rehearse
from conftest import ROOT, imported
from test_stage import write

SQUARES = """\
import time
from fakevlm import cache, paths
with cache.work() as store:
    for n in range(20):
        if store.get(cache.key(n)) is None:
            time.sleep(0.1)
            store.put(cache.key(n), b"%d" % n**2)
            print(n, file=(paths.root() / "computed").open("a"))
    paths.artifacts("tiny").mkdir(parents=True)
    paths.artifacts("tiny", "squares").write_bytes(b" ".join(store.get(cache.key(n)) for n in range(20)))
"""


@pytest.mark.slow
def test_stops_and_flipped_bytes_change_nothing(project: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    write(project, SQUARES)
    stage = "{cmd: fakevlm stage tiny, deps: [notebooks/tiny.ipynb], outs: [artifacts/tiny]}"
    (project / "dvc.yaml").write_text(f"stages: {{tiny: {stage}}}")
    Repo.init(no_scm=True)
    faults, seconds = imported(ROOT / "benchmarks/faults.py"), Future()
    seconds.set_result(5.0)
    there = faults.Project(project, rehearse.environment(project) | {"PYTHONPATH": str(ROOT / "src")})
    table = faults.Table()
    stops, _ = faults.disturbed_run(there, {"tiny": seconds}, 2, Random(1), table, inf)
    faults.flips_in_artifacts(there, Random(2), table)
    assert (len(stops), table.faults) == (3, [])
    squares = b" ".join(b"%d" % n**2 for n in range(20))
    assert (project / "artifacts/tiny/squares").read_bytes() == squares
    assert not (project / "runs/work/mini/tiny").exists()
    # A value is computed twice only if a kill came before it was stored.
    assert len((project / "computed").read_text().split()) <= 20 + len(stops)

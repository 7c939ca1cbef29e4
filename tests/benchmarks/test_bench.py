"""benchmarks/bench.py: what a row says. The parts check their own results before they time anything."""

from conftest import ROOT, imported


def test_a_row_compares_two_ways_run_in_turns(monkeypatch):
    script, calls = imported(ROOT / "benchmarks/bench.py"), []
    ours = lambda: calls.append("ours") or 0.5  # noqa: E731
    reference = lambda: calls.append("reference") or 0.001 * len(calls)  # noqa: E731
    row = script.compare("what", ours, reference, 10)
    assert calls == ["ours", "reference"] * (script.PAIRS + 1)
    assert row == ("what", "50 ms", "0.8 ms", "0.02", "0.01–0.02")

"""The summary at a run's end, on small made-up tables."""

from pathlib import Path

import pytest

from fakevlm import summary
from fakevlm.errors import UserError
from smallcorpora import put

HEAD = "method,source,benchmark,subset,metric,value,ci_low,ci_high,n\n"
TABLES = {
    "table2_fakeclue_loki": (
        "FakeVLM,paper,fakeclue,all,acc,0.986,,,\n"
        "FakeVLM,run,fakeclue,all,acc,0.9012,0.88,0.92,640\n"
        "FakeVLM,run,fakeclue,category=doc,acc,0.1,0.1,0.1,64\n"
        "FakeVLM,run,fakeclue,all,auc,0.95,,,640\n"
        "GPT-4o,paper,fakeclue,all,acc,0.474,,,\n"
    ),
    "table3_dmimage": "FakeVLM,paper,dmimage,Overall,acc,0.94,,,\nFakeVLM,paper,dmimage,Real,acc,0.98,,,\n",
    "table4_ddvqa": "FakeVLM,paper,ddvqa,all,acc,0.932,,,\n",
    "table5_ffpp": (
        "FakeVLM,paper,ffpp,Average,auc,0.963,,,\n"
        "FakeVLM,run,ffpp,Average,auc,0.9,,,84\n"
        "FakeVLM,run,ffpp,all,auc,0.5,,,84\n"
    ),
    "table6_ablation": "LLaVA + Linear Head,run,loki,all,acc,0.61,0.55,0.67,300\n",
}


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    files = {f"{name}.csv": HEAD + rows for name, rows in TABLES.items()}
    others = ("fig3_paradigms.png", "fig3_paradigms.svg", "report.html")
    return put(tmp_path, files | dict.fromkeys(others, ""))


def test_numbers_of_whole_benchmarks_beside_the_papers(figures: Path) -> None:
    numbers = [tuple(row) for row in summary.main_numbers(figures)]
    assert numbers[0] == ("FakeClue", "FakeVLM", "accuracy", "0.986", "0.901 [0.880, 0.920]")
    assert numbers[1] == ("FakeClue", "FakeVLM", "AUC", "–", "0.950")
    assert ("DMimage", "FakeVLM", "accuracy", "0.940", "–") in numbers
    assert ("FF++", "FakeVLM", "AUC", "0.963", "0.900") in numbers  # the mean of the manipulations
    assert ("LOKI", "LLaVA + Linear Head", "accuracy", "–", "0.610 [0.550, 0.670]") in numbers
    assert len(numbers) == 6  # nothing else is in the tables; GPT-4o is no main number

    text = summary.render(figures)
    for part in ("this run (mini)", "fig3_paradigms.png", "report.html"):
        assert part in text
    assert "fig3_paradigms.svg" not in text
    assert text.count("FakeClue") == 1  # named once for its rows


def test_missing_and_damaged_tables_are_named(figures: Path) -> None:
    (figures / "table4_ddvqa.csv").write_text("method,value\nFakeVLM,1\n")
    with pytest.raises(UserError, match=r"table4_ddvqa\.csv lacks benchmark, ci_high, ci_low, metric"):
        summary.main_numbers(figures)
    (figures / "table4_ddvqa.csv").unlink()
    with pytest.raises(UserError, match=r"no .*table4_ddvqa\.csv"):
        summary.main_numbers(figures)

"""The paper's printed numbers as data: complete, in range, and their arithmetic done again."""

import pytest
import yaml

from fakevlm.errors import UserError
from fakevlm.reporting import arithmetic
from fakevlm.reporting.published import FILE, TIDY, load_published

PUBLISHED = load_published()
CELLS = {
    "table2": 8 * 8 + 1 + 6 * 4,
    "table7": 13 * 4,
    "table8": 10 * 8 - 1,
    "table3": 8 * 6,
    "table4": 9 * 4 - 3,
    "table5": 5 * 5,
    "table6": 2 * 4 - 2,
}


@pytest.mark.parametrize("name", CELLS)
def test_every_printed_cell_is_there_as_a_fraction(name: str) -> None:
    frame = PUBLISHED.frame(name)
    assert list(frame.columns) == TIDY
    assert len(frame) == CELLS[name]
    assert frame.value.between(0, 1).all()
    assert (frame.source == "paper").all()
    assert not frame.duplicated(["method", "benchmark", "subset", "metric"]).any()


@pytest.mark.parametrize(
    ("table", "method", "column", "printed"),
    [
        ("table2", "FakeVLM", "fakeclue/all/acc", 0.986),
        ("table2", "FakeVLM", "loki/all/css", 0.582),
        ("table2", "GPT-4o", "loki/all/acc", 0.634),
        ("table2", "Human", "loki/all/acc", 0.801),
        ("table3", "SIDA", "dmimage/Overall/f1", 92.4),
        ("table4", "Common-DF-TI", "ddvqa/all/rouge_l", 0.609),
        ("table4", "Common-DF-T", "ddvqa/all/css", None),
        ("table5", "CDFA", "ffpp/FF-NT/auc", 80.7),
        ("table6", "LLaVA + Linear Head", "loki/all/f1", 0.778),
    ],
)
def test_cells_as_printed(table: str, method: str, column: str, printed: float | None) -> None:
    assert PUBLISHED.table(table).printed(method, column) == printed


def test_unknown_cells_are_no_numbers() -> None:
    with pytest.raises(KeyError):
        PUBLISHED.table("table2").printed("FakeVLM", "fakeclue/all/auc")
    with pytest.raises(KeyError):
        PUBLISHED.table("table2").printed("Nobody", "fakeclue/all/acc")


def test_table1_has_its_six_rows() -> None:
    rows = {row.dataset: row for row in PUBLISHED.datasets.rows}
    assert list(rows) == ["DD-VQA", "FF-VQA", "LOKI", "Fakebench", "MMTD-Set", "FakeClue"]
    assert rows["FakeClue"].annotator == "Multi-LMMs"
    assert [name for name, row in rows.items() if row.categories] == ["LOKI", "Fakebench", "FakeClue"]


@pytest.mark.parametrize(
    "words",
    [
        *("is .837 here and .801", "is .201 here and .609", "F1(fake) .989", "2a/(1+a)", "BLIP"),
        *("DeepfakeBench's", "97.1", "Figure 3's values are printed nowhere", "2e-4", "1:1 ratio"),
    ],
)
def test_the_known_contradictions_are_listed(words: str) -> None:
    assert any(words in note for _, note in PUBLISHED.contradictions())


def test_the_release_adds_up() -> None:
    frame = PUBLISHED.release.frame()
    assert len(frame) == 7 * 4
    totals = frame.groupby(["split", "label"]).n.sum().to_dict()
    assert totals == {("train", 0): 68_396, ("train", 1): 35_947, ("test", 0): 3_192, ("test", 1): 1_808}
    answers = PUBLISHED.release.fakeclue_answers
    assert sum(answers.values()) == 5_000
    assert answers["real_as_real"] + answers["real_as_fake"] == 1_808


def test_which_claims_follow() -> None:
    checks = arithmetic.checks(PUBLISHED)
    follows = {check.what: check.follows for check in checks}
    table3 = {what.split(":")[0] for what, ok in follows.items() if "2a/(1+a)" in what and ok}
    assert table3 == {"FakeVLM, Real", "FakeVLM, Fake", "CNNSpot, Fake", "Gram-Net, Fake", "LNP, Fake"}
    averages = {what.split(":")[0] for what, ok in follows.items() if "average of the four" in what and ok}
    assert averages == {"CDFA", "FakeVLM"}
    assert sum("Common-DF" in what and ok for what, ok in follows.items()) == 3
    assert not any(ok for what, ok in follows.items() if "Qwen2-VL-72B" in what)
    assert follows["patches an image: (image size / patch size)²"]
    assert follows["FakeVLM's F1 on FakeClue as F1(real) of the released weights' answers"]
    assert not any(ok for what, ok in follows.items() if what.startswith("LOKI"))


def test_averages_of_table_5_by_hand() -> None:
    checks = arithmetic.checks(PUBLISHED)
    means = {c.what.split(":")[0]: c.middle for c in checks if "average of the four" in c.what}
    assert means["FWA"] == pytest.approx(87.925)
    assert max(means, key=means.__getitem__) == "Face X-ray"  # not FakeVLM, as the paper says


def test_table_3_mixes_test_sets_and_positive_classes() -> None:
    found = {m.method: m for m in arithmetic.mixtures(PUBLISHED)}
    assert found["FakeVLM"].positive == "real"
    assert {m for m, mixture in found.items() if mixture.positive == "fake"} == {"CNNSpot", "Gram-Net", "LNP"}
    assert found["FakeVLM"].share[0] > 0.45
    for method in ("CNNSpot", "Gram-Net", "LNP", "UnivFD"):
        assert found[method].share[1] < 0.25


def test_rounding_is_granted() -> None:
    assert arithmetic.Check("", "", 84.3, 84.25, 84.25, 0.05).follows
    assert not arithmetic.Check("", "", 84.3, 84.1, 84.2, 0.05).follows
    assert arithmetic.single_class_f1(0.982) == pytest.approx(0.99092, abs=1e-5)


def _broken(tmp_path, change) -> object:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    change(content)
    file = tmp_path / "published.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["tables"][0]["rows"][0]["values"].pop(), "Deepseek-VL2-small"),
        (lambda c: c["tables"][0]["columns"].__setitem__(0, "acc"), "benchmark/subset/metric"),
        (lambda c: c["tables"][1]["rows"][0].__setitem__("value", 1), "value"),
        (
            lambda c: c["tables"][1]["rows"][7]["notes"][0].__setitem__("cells", ["nowhere/all/acc"]),
            "nowhere",
        ),
        (lambda c: c["claims"].append(dict(c["claims"][0])), "human"),
        (lambda c: c["claims"][0].__setitem__("value", "80.1"), "claims"),
    ],
)
def test_a_broken_file_is_named(tmp_path, change, named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_published(_broken(tmp_path, change))


def test_a_missing_or_unreadable_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml"):
        load_published(tmp_path / "gone.yaml")
    (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(UserError, match="not readable YAML"):
        load_published(tmp_path / "bad.yaml")

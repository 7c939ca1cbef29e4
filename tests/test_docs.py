"""README, docs, notebooks and settings name only commands, stages, modules and files that exist."""

import pkgutil
import re
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from conftest import ROOT
from fakevlm import summary
from fakevlm.cli import app
from fakevlm.reporting.texts import layout
from test_notebooks import NOTEBOOKS, STAGES, read

COMMANDS = set(get_command(app).commands)
RULES = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
FOLDERS = "src|notebooks|tests|figures|benchmarks|integrations|docs|examples|embedded"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "params.yaml", "dvc.yaml")),
    *sorted((ROOT / "docs").glob("*.md")),
    *NOTEBOOKS,
]


def prose(page: Path) -> str:
    """Return a page's text; of a notebook the Markdown cells."""
    if page.suffix != ".ipynb":
        return page.read_text()
    return "\n".join(cell.source for cell in read(page).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_what_exists(page: Path) -> None:
    text = prose(page)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    paths = re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]*\w)", re.sub(r"\]\([^)]+\)", "", text))
    assert [path for path in paths if not (ROOT / path).exists()] == []
    commands = re.findall(r"(?:^|`|&& )fakevlm ([a-z][a-z-]*)", text, re.M)
    assert set(commands) <= COMMANDS
    assert set(re.findall(r"(?:^|`|&& )make ([a-z]+)", text, re.M)) <= RULES
    assert set(re.findall(r"dvc repro (?:-f )?([a-z]+)", text)) <= set(STAGES)
    for name in re.findall(r"`((?:fakevlm|miniworld)(?:\.\w+)+)", text):
        pkgutil.resolve_name(name)


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 140] == []


def test_readme_shows_the_numbers_of_the_committed_tables(tmp_path: Path) -> None:
    """A run on another processor rounds differently and may change figures/; what is committed must agree."""
    for name in {main["table"] for main in layout()["main"]}:
        show = ["git", "show", f"HEAD:figures/{name}.csv"]
        done = subprocess.run(show, cwd=ROOT, capture_output=True)
        if done.returncode:
            pytest.skip("not a git checkout")
        (tmp_path / f"{name}.csv").write_bytes(done.stdout)
    table = (ROOT / "README.md").read_text().split("<!-- results")[1].split("-->", 1)[1].split("<!--")[0]
    assert table.strip() == summary.markdown(tmp_path)

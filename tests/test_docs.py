"""Pages name only commands, stages, modules and files that exist; notebooks are valid and thin."""

import ast
import pkgutil
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from typer.main import get_command

from conftest import ROOT
from fakevlm import summary
from fakevlm.cli import app
from fakevlm.reporting.texts import layout

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LONGEST_CELL = 20  # lines; longer code belongs in src/
COMMANDS = set(get_command(app).commands)
RULES = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
FOLDERS = "src|notebooks|tests|figures|benchmarks|integrations|docs|examples|embedded"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "params.yaml", "dvc.yaml")),
    *sorted((ROOT / "docs").glob("*.md")),
    *NOTEBOOKS,
]

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=nbformat.NO_CONVERT)


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
    assert set(re.findall(r"(?:^|`|&& )fakevlm ([a-z][a-z-]*)", text, re.M)) <= COMMANDS
    assert set(re.findall(r"(?:^|`|&& )make ([a-z]+)", text, re.M)) <= RULES
    assert set(re.findall(r"dvc repro (?:-f )?([a-z]+)", text)) <= set(STAGES)
    for name in re.findall(r"`((?:fakevlm|miniworld)(?:\.\w+)+)", text):
        pkgutil.resolve_name(name)


def test_readme_shows_the_numbers_of_the_committed_tables(tmp_path: Path) -> None:
    """A run on another processor rounds differently and may change figures/; what is committed must agree."""
    for name in {main["table"] for main in layout()["main"]}:
        done = subprocess.run(["git", "show", f"HEAD:figures/{name}.csv"], cwd=ROOT, capture_output=True)
        if done.returncode:
            pytest.skip("not a git checkout")
        (tmp_path / f"{name}.csv").write_bytes(done.stdout)
    table = (ROOT / "README.md").read_text().split("<!-- results")[1].split("-->", 1)[1].split("<!--")[0]
    assert table.strip() == summary.markdown(tmp_path)


@every_notebook
def test_a_notebook_is_valid_and_begins_by_saying_what_it_makes_and_how_to_run_it(file: Path) -> None:
    notebook = read(file)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert file.read_text("utf-8").startswith('{\n "'), "indent 1, as Jupyter has it"
    first = notebook.cells[0]
    assert (first.cell_type, first.source[:2]) == ("markdown", "# ")
    assert re.search(r"dvc repro|papermill|fakevlm stage|make ", first.source), "name the command there"


@every_notebook
def test_one_parameters_cell_of_plain_names_which_are_the_stages(file: Path) -> None:
    cells = [cell for cell in read(file).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    values = {}
    for node in ast.parse(cells[0].source).body:
        assert isinstance(node, ast.Assign), f"only `name = value` may stand there, not: {ast.unparse(node)}"
        values[node.targets[0].id] = ast.literal_eval(node.value)
    assert values.pop("profile") is None, "None: the profile that params.yaml names"
    assert all(isinstance(value, str | None) for value in values.values()), "numbers live in params.yaml"
    for command in (stage["cmd"].split() for stage in STAGES.values()):
        given = {word.split("=")[0] for word in command if "=" in word}
        assert command[2] != file.stem or given <= set(values)


@every_notebook
def test_cells_are_thin_named_and_name_no_path_of_somebodys_machine(file: Path) -> None:
    cells = read(file).cells
    assert [cell.id for cell in cells if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell.id)] == [], (
        "name the cells"
    )
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, f"cell {cell.id} is long: move its code to src/"
        nodes = list(ast.walk(ast.parse(re.sub(r"(?m)^[%!].*$", "", cell.source))))
        assert not any(isinstance(n, ast.ClassDef) for n in nodes), f"cell {cell.id}: move its class to src/"
        texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert not [t for t in texts if re.match(r"(/|\.\./|~)", t)], f"cell {cell.id}: use fakevlm.paths"

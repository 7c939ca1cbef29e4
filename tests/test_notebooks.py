"""The notebooks as they lie in git: valid, thin, without outputs, with one cell for parameters."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
LONGEST_CELL = 20  # lines; longer code belongs in src/

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, as_version=nbformat.NO_CONVERT)


def code_cells(file: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(file).cells if cell.cell_type == "code"]


def parameter_cells(file: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in code_cells(file) if "parameters" in cell.metadata.get("tags", [])]


def test_every_stage_has_its_notebook() -> None:
    commands = [stage["cmd"] for stage in STAGES.values()]
    assert {command.split()[2] for command in commands} <= {file.stem for file in NOTEBOOKS}


@every_notebook
def test_valid(file: Path) -> None:
    notebook = read(file)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    nbformat.validate(notebook)
    text = file.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert text.startswith('{\n "'), "indent 1, as Jupyter writes it: else every save shows as a change"


@every_notebook
def test_runs_in_the_environment_it_is_opened_in(file: Path) -> None:
    assert read(file).metadata.kernelspec.name == "python3"


@every_notebook
def test_no_outputs_on_disk(file: Path) -> None:
    for cell in code_cells(file):
        assert cell.outputs == [], f"cell {cell.id} has outputs: clear them before committing"
        assert cell.execution_count is None, (
            f"cell {cell.id} has been run: clear its outputs before committing"
        )


@every_notebook
def test_exactly_one_parameters_cell_of_plain_names(file: Path) -> None:
    cells = parameter_cells(file)
    assert len(cells) == 1
    names = {}
    for node in ast.parse(cells[0].source).body:
        assert isinstance(node, ast.Assign), f"only `name = value` may stand there, not: {ast.unparse(node)}"
        assert isinstance(node.value, ast.Constant)
        assert node.value.value is None or isinstance(node.value.value, str), (
            "numbers and flags live in params.yaml"
        )
        names[node.targets[0].id] = node.value.value
    assert names["profile"] is None, "None: the profile that params.yaml names"


@every_notebook
def test_parameters_of_the_stage_are_those_of_the_notebook(file: Path) -> None:
    defined = {node.targets[0].id for node in ast.parse(parameter_cells(file)[0].source).body}
    for stage in STAGES.values():
        words = stage["cmd"].split()
        if words[2] == file.stem:
            assert {word.split("=")[0] for word in words if "=" in word} | {"profile"} <= defined


@every_notebook
def test_thin(file: Path) -> None:
    for cell in code_cells(file):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, f"cell {cell.id} is long: move its code to src/"
        for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!].*$", "", cell.source))):
            assert not isinstance(node, ast.ClassDef), f"cell {cell.id} defines a class: move it to src/"


@every_notebook
def test_begins_by_saying_what_it_makes_and_how_to_run_it(file: Path) -> None:
    first = read(file).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"dvc repro|papermill|fakevlm stage|make ", first.source), (
        "the first cell names the command"
    )


@every_notebook
def test_cells_have_names_to_find_them_by(file: Path) -> None:
    ids = [cell.id for cell in read(file).cells]
    assert len(set(ids)) == len(ids)
    assert [i for i in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", i)] == [], (
        "random ids: name the cells"
    )


@every_notebook
def test_no_path_of_somebodys_machine(file: Path) -> None:
    for cell in code_cells(file):
        for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!].*$", "", cell.source))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(/|\.\./|~)", node.value), (
                    f"cell {cell.id}: use fakevlm.paths, not {node.value!r}"
                )

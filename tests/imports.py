"""Which modules of the package a file imports, read from its syntax without running it."""

import ast
import json
from functools import cache
from pathlib import Path

from fakevlm import plugins

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name; a package is its `__init__.py`."""
    found = {}
    for file in sorted(SRC.glob("*/**/*.py")):
        parts = file.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def syntax(file: Path) -> ast.Module:
    """The syntax of a module, or of all code cells of a notebook (lines of shell and magic left out)."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
        text = "\n".join(line for line in lines if not line.startswith(("%", "!")))
    return ast.parse(text, filename=str(file))


def _imports(node: ast.AST, lazy: bool) -> list[ast.Import | ast.ImportFrom]:
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found.append(child)
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            found += _imports(child, lazy)
    return found


@cache
def imported(file: Path, lazy: bool = True) -> frozenset[str]:
    """Dotted names that a file imports, of the package and others; without `lazy` those of its top level only.

    `from fakevlm.model import chat` counts as `fakevlm.model.chat` where that is a module, else as
    `fakevlm.model`; `from fakevlm.plugins import RENDERERS` also as the modules that this table names, since
    they are loaded by name.
    """
    known, names = modules(), set()
    for node in _imports(syntax(file), lazy):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{file}: relative import; name the package"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in inner}
            if node.module == "fakevlm.plugins" and lazy:
                tables = [
                    getattr(plugins, a.name) for a in node.names if a.name in ("RENDERERS", "ANNOTATORS")
                ]
                names |= {reference.split(":")[0] for table in tables for reference in table.values()}
    return frozenset(names)


def reached(file: Path, lazy: bool = True, packages: bool = True) -> set[str]:
    """The package's modules that a file imports directly or through others; `packages`: and the packages they lie in."""
    known, seen, todo = modules(), set(), [file]
    while todo:
        for name in imported(todo.pop(), lazy):
            parts = name.split(".")
            prefixes = [".".join(parts[:i]) for i in range(1, len(parts) + 1)] if packages else [name]
            for prefix in prefixes:
                if prefix in known and prefix not in seen:
                    seen.add(prefix)
                    todo.append(known[prefix])
    return seen

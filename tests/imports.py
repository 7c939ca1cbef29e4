"""What a notebook imports of the two packages, directly or not (by grimp, as import-linter does)."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import grimp

from conftest import ROOT
from fakevlm import plugins

REGISTERED = {"annotation.annotators": plugins.ANNOTATORS, "synthesis.rendered": plugins.RENDERERS}


@cache
def graph() -> grimp.ImportGraph:
    """Return who imports whom. A module also imports its package, and what it loads by name."""
    imports = grimp.build_graph("fakevlm", "miniworld")
    for module in sorted(imports.modules):
        if "." in module:
            imports.add_import(importer=module, imported=module.rpartition(".")[0])
    for module, registered in REGISTERED.items():
        for reference in registered.values():
            imports.add_import(importer=f"fakevlm.{module}", imported=reference.split(":")[0])
    return imports


def reached(notebook: Path) -> set[str]:
    """Return the packages' modules that a notebook imports directly or through others."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code = re.sub(r"(?m)^[%!].*$", "", "\n".join(sources))
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    direct = names & graph().modules
    return direct.union(*(graph().find_upstream_modules(name) for name in direct))


def file_of(module: str) -> Path:
    """Return the file of a module; a package's is its `__init__.py`.

    A folder without one is no package: an old checkout may hold it, with nothing but `__pycache__` in it.
    """
    path = ROOT / "src" / module.replace(".", "/")
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")

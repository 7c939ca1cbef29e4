"""Shared by the tests: a throwaway project folder that the package takes for the repository, a tiny model."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fakevlm.config.params import Params
from misbehaving import serving

sys.modules.setdefault("rfc3987_syntax", None)  # a grammar that jsonschema parses at import (fakevlm.stage)
os.environ["OMP_WAIT_POLICY"] = "passive"  # a thread that waits leaves its core to other tests
ROOT = Path(__file__).resolve().parents[1]


def imported(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(params: Params, section: str, **changes: Any) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=changes)})


@contextmanager
def killed_after(calls: int, owner: Any, name: str) -> Iterator[None]:
    """What runs within is killed when it calls a function of `owner` once more than so many times."""
    function, left = getattr(owner, name), iter(range(calls))

    def dying(*args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, training before all: begun last, one would keep one core busy."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in slow, item.path.parent.name), reverse=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the real params.yaml: `fakevlm.paths.root()`, also in kernels."""
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("FAKEVLM_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained LLaVA, for all tests: not to be written to."""
    import tinyllava

    return tinyllava.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch computes with two threads, whose sums must not depend on which is faster."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quick_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local servers without a proxy, short waits, and somebody else's key, which must never be sent."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    waits = {"_BACKOFF": 0.02, "_FIRST_REST": 0.05, "_LONGEST_REST": 0.2}
    waits |= {"_NONE_YET": 0.5, "_NONE_ANY_MORE": 30.0}
    for name, seconds in waits.items():
        monkeypatch.setattr(f"fakevlm.inference.servers.{name}", seconds)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the server of `url` writes what it is asked."""
    return tmp_path / "log"


@pytest.fixture
def url(log: Path) -> Iterator[str]:
    """The address of a misbehaving server."""
    with serving(log) as address:
        yield address

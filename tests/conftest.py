"""Shared by the tests: a throwaway project folder that the package takes for the repository."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with the real params.yaml; `fakevlm.paths.root()` is there, also in kernels started from a test."""
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("FAKEVLM_ROOT", str(tmp_path))
    return tmp_path

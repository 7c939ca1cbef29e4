"""A dress rehearsal of profile `paper` or `released`: the whole pipeline by `dvc repro` in a copy of the repository.

    python tests/rehearse.py paper        (or: make rehearse)

Everything is the profile's own but what tests/rehearsal.yaml changes: few images of the miniature's corpora, which have the real
layouts; tiny models of random weights, of the real classes and in the real formats; and for the language models behind
servers one that stands in for all (tests/understudy.py). So the numbers mean nothing. What it shows is that on the day someone has
the data, the weights and the machines, every stage takes the profile's way and hands on what the next one needs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).parent


def changed(section: Any, changes: Any) -> Any:
    """A section of params.yaml with other values; where both are mappings only the keys named change."""
    if not (isinstance(section, dict) and isinstance(changes, dict)):
        return changes
    return section | {key: changed(section.get(key), value) for key, value in changes.items()}


def located(value: Any, port: int, models: Path) -> Any:
    """The values of rehearsal.yaml with their places filled in, and every server's address with the stand-in's."""
    if isinstance(value, dict):
        return {
            key: [f"http://127.0.0.1:{port}/v1"] if key == "urls" else located(part, port, models)
            for key, part in value.items()
            if key != "api_key_env"
        }
    if isinstance(value, list):
        return [located(part, port, models) for part in value]
    return value.replace("{models}", str(models)) if isinstance(value, str) else value


def make_models(folder: Path) -> None:
    """Tiny models under the names that rehearsal.yaml uses, and a made-up release."""
    import timm

    import tinyllava
    from smallrelease import make_release
    from test_person import tiny_detector

    folder.mkdir(parents=True)
    tinyllava.build(folder / "llava")
    tiny_detector(folder / "detr")
    sizes = {"img_size": 28, "embed_dim": 24, "depth": 1, "num_heads": 2, "ref_feat_shape": (2, 2)}
    model = timm.create_model("eva02_tiny_patch14_224", num_classes=1000, **sizes)
    timm.models.save_for_hf(model, folder / "eva02", safe_serialization=True)
    make_release(folder / "fakeclue")


@contextmanager
def understudy() -> Iterator[int]:
    """The port of a running stand-in server."""
    command = [sys.executable, str(HERE / "understudy.py")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def stage_set(profile: str, folder: Path, port: int) -> None:
    """Copies the repository into `folder`, its params.yaml changed for the rehearsal."""
    from publishedweights import published

    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    models = folder / "corpora"  # which git and DVC ignore
    make_models(models)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    section = changed(params[profile], yaml.safe_load((HERE / "rehearsal.yaml").read_text())[profile])
    files = published(models) if section["evaluate"]["experts"] else {}
    for expert in section["evaluate"]["experts"]:
        expert |= files[expert["kind"]]
    params |= {"profile": profile, profile: located(section, port, models)}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def rehearse(profile: str, folder: Path) -> int:
    """Runs the pipeline in `folder`; dvc's exit status."""
    with understudy() as port:
        stage_set(profile, folder, port)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "FAKEVLM_ROOT": str(folder),
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_OFFLINE": "1",
        }
        return subprocess.run(["dvc", "repro"], cwd=folder, env=environment).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=["paper", "released"])
    parser.add_argument("--folder", type=Path, help="an empty one, kept; default: a temporary one, deleted")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        return rehearse(options.profile, options.folder.resolve())
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        return rehearse(options.profile, Path(folder))


if __name__ == "__main__":
    sys.exit(main())

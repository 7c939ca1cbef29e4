"""Run the whole pipeline by DVC in a copy of the repository, on few images.

    python tests/rehearse.py paper        or `make rehearse`: profile `paper` or `released`
    python tests/rehearse.py smoke        or `make smoke`: the miniature at a twentieth of everything

tests/rehearsal.yaml says what differs from the profile. For `paper` and `released` that is: the miniature's
images, tiny models in the real formats, and one server in place of all language models (`reply`). Their
numbers mean nothing. `smoke` compares what it made with the hashes of an earlier run on this machine.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from jsonserver import completion, serving

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).parent
CAPTIONS = {
    "fake": "The texture of the surface is waxy and smeared. "
    "The edges are bent where they should be straight. The shadow falls in an impossible direction.",
    "real": "The texture shows a natural grain. The edges are straight and consistent. "
    "The shadows agree with the light.",
}


def reply(body: dict) -> str:
    """Return what an aggregator, an annotator or a baseline says to a request."""
    parts = body["messages"][0]["content"]
    text = " ".join(part["text"] for part in parts if part["type"] == "text")
    if "response_format" in body:
        observers = json.loads(text[text.rindex("[\n") :])
        verdict = re.search(r"It is known to be (fake|real)", text)[1]
        everyone = [observer["observer"] for observer in observers]
        sentences = re.split(r"(?<=\.) ", observers[0]["said"])
        points = [{"statement": s.rstrip("."), "annotators": everyone, "critical": False} for s in sentences]
        families = ("texture", "geometry", "lighting")
        return json.dumps({"verdict": verdict, **{f: points[n : n + 1] for n, f in enumerate(families)}})
    if label := re.search(r"The image is known to be (FAKE|REAL)", text):
        return CAPTIONS[label[1].lower()]
    image = next((part["image_url"]["url"] for part in parts if part["type"] == "image_url"), "")
    chance = hashlib.sha256(f"{body['model']} {image} {text}".encode()).digest()[0]
    verdict = ("fake", "real")[chance % 2]
    return f"This is a {verdict} image. {CAPTIONS[verdict]}"


def changed(section: Any, changes: Any) -> Any:
    """Return a section of params.yaml with other values; of mappings only the keys named change."""
    if not (isinstance(section, dict) and isinstance(changes, dict)):
        return changes
    return section | {key: changed(section.get(key), value) for key, value in changes.items()}


def located(value: Any, address: str, models: Path) -> Any:
    """Return the values of rehearsal.yaml with places and addresses filled in."""
    if isinstance(value, dict):
        parts = {key: located(part, address, models) for key, part in value.items() if key != "api_key_env"}
        return parts | ({"urls": [f"{address}/v1"]} if "urls" in parts else {})
    if isinstance(value, list):
        return [located(part, address, models) for part in value]
    return value.replace("{models}", str(models)) if isinstance(value, str) else value


def make_models(folder: Path) -> None:
    """Write tiny models under the names that rehearsal.yaml uses, and a made-up release."""
    import tinyllava
    from smallcorpora import make_release
    from tinyeva import tiny_detector, tiny_head

    folder.mkdir(parents=True)
    tinyllava.build(folder / "llava")
    tiny_detector(folder / "detr")
    tiny_head(folder / "eva02", None, 1000)
    make_release(folder / "fakeclue")


def copy_checkout(folder: Path) -> None:
    """Copy all files of the repository that git knows or would add."""
    if not (ROOT / ".git").exists():
        sys.exit(f"error: {ROOT} has no .git\n  → run `git init` there; git lists what is copied")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def write_params(profile: str, folder: Path, address: str) -> None:
    """Write the copy's params.yaml, and the models that it names."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    changes = yaml.safe_load((HERE / "rehearsal.yaml").read_text())[profile]
    models = folder / "corpora"  # git and DVC ignore it
    if profile == "smoke":
        section = changed(params["mini"], changes)
    else:
        from publishedweights import published

        make_models(models)
        section = changed(params[profile], changes)
        files = published(models) if section["evaluate"]["experts"] else {}
        for expert in section["evaluate"]["experts"]:
            expert |= files[expert["kind"]]
    params |= {"profile": profile, profile: located(section, address, models)}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which the pipeline runs in a copy of the checkout, on its code."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "FAKEVLM_ROOT": str(folder),
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",  # lines are shown as they come
    }


def rehearse(profile: str, folder: Path) -> int:
    """Run the pipeline in `folder`; return its exit status."""
    with serving(lambda path, body: completion(reply(body))) as address:
        copy_checkout(folder)
        write_params(profile, folder, address)
        seconds, options = {}, {"cwd": folder, "env": environment(folder), "text": True}
        # `paper` and `released` need GPUs: there, too, one stage runs after the other.
        command = ["fakevlm" if profile == "smoke" else "dvc", "repro"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as run:
            for line in run.stdout:
                print(line, end="", flush=True)
                if stage := re.search(r"\[(.+)\] (\d+) s →", line):
                    seconds[stage[1]] = int(stage[2])
        print("".join(f"{count:5} s  {stage}\n" for stage, count in seconds.items()), end="")
        return run.returncode


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every artifact, table and figure. The page, which lists code versions, is not."""
    files = sorted(file for place in ("artifacts", "figures") for file in (folder / place).rglob("*"))
    sums = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.name != "report.html"
    }
    return {name: value for name, value in sums.items() if not name.startswith("artifacts/executed/")}


def compare(made: dict[str, str], file: Path, record: bool) -> int:
    """Record the hashes, or print which files differ from those recorded; return the exit code."""
    if record:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made, indent=1) + "\n")
        print(f"recorded {len(made)} files in {file}")
        return 0
    if not file.is_file():
        print(f"nothing recorded on this machine yet: `make smoke ARGS=--record` writes {file}")
        return 0
    before = json.loads(file.read_text())
    differing = [name for name in sorted(before | made) if before.get(name) != made.get(name)]
    for name in differing:
        print("gone:" if name not in made else "changed:" if name in before else "new:", name)
    same = f"same bytes: {len(made)} files"
    print("differs from the recorded run in the files above" if differing else same)
    return 1 if differing else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=["paper", "released", "smoke"])
    parser.add_argument("--folder", type=Path, help="an empty one, kept; default: a temporary one, deleted")
    parser.add_argument("--record", action="store_true", help="smoke: keep the hashes of this run")
    kept = ROOT / "runs/smoke.json"
    parser.add_argument("--hashes", type=Path, default=kept, help="smoke: where they are kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        status = rehearse(options.profile, folder)
        if status == 0 and options.profile == "smoke":
            print(f"smoke: {time.monotonic() - started:.0f} s")
            return compare(hashes(folder), options.hashes, options.record)
        return status


if __name__ == "__main__":
    sys.exit(main())

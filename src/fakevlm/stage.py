"""Run one notebook as one stage of the pipeline: `fakevlm stage 06_evaluate benchmark=loki`.

papermill executes it in a new kernel; the raw run stays in `runs/notebooks/`, and a normalised copy, with the
same bytes at every run, goes to `artifacts/executed/`. A stage that the profile leaves out counts as done.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakevlm import paths
from fakevlm.config.params import load_params
from fakevlm.config.parts import LeftOut
from fakevlm.errors import GO_ON, UserError, refused

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130  # exit codes
TRACEBACK_LINES = 15
ERROR_MARK, INJECTED = "papermill-error-cell-tag", "injected-parameters"  # tags of cells that papermill adds

# Inherited by the kernel. Nothing here forbids the network: profiles that name models on a hub must reach it.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # Sums depend on how many threads share them: one, on every machine. More cores run more stages at once.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Few page faults, which some virtual machines are slow at: glibc gives large arrays pages of 2 MB, and
    # keeps up to 1 GiB that was freed.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432"
    ":glibc.malloc.trim_threshold=1073741824",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what CUDA needs for deterministic matrix products
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Agg into the notebook
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "JUPYTER_PREFER_ENV_PATH": "1",  # a kernel named python3 in the user's home may be another Python
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else debugpy warns about frozen modules at every start
}
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
# DeepSpeed's log lines on stdout: "[2026-11-24 15:24:03,928] [WARNING] [file:line] …".
_LOG_LINE = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\] \[[A-Z]+\] .*\n?", re.MULTILINE)


def notebook_path(name: str) -> Path:
    """Return the file of the notebook called `name` (`06_evaluate`).

    Raises:
        UserError: there is none; the message lists those there are.
    """
    folder = paths.root() / "notebooks"
    path = folder / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.ipynb"))) or "none"
        raise UserError(f"no notebook {name!r} in {folder}", f"choose one of: {names}")
    return path


def set_environment() -> None:
    """Set what kernels inherit from this process: notebooks compute the same in stages and JupyterLab."""
    os.environ.update(ENVIRONMENT)
    os.environ["IPYTHONDIR"] = str(paths.runs("ipython"))  # the user's start-up files do not count
    if (code := paths.root() / "src").is_dir():  # a worktree's notebook runs the worktree's code
        paths_before = filter(None, [os.environ.get("PYTHONPATH")])
        os.environ["PYTHONPATH"] = os.pathsep.join([str(code), *paths_before])


def strip(model: dict[str, Any], path: str, **_: object) -> None:
    """Remove from a stage's notebook what a run adds, before JupyterLab saves it: DVC hashes the file.

    It is the `pre_save_hook` of notebooks/jupyter_server_config.py. Other notebooks keep their outputs.
    """
    stages = (paths.root() / "dvc.yaml").read_text(encoding="utf-8")
    if model["type"] == "notebook" and f"notebooks/{Path(path).name}\n" in stages:
        notebook = model["content"]
        kernel = notebook["metadata"]["kernelspec"]
        notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
        for cell in notebook["cells"]:
            cell["metadata"] = {key: cell["metadata"][key] for key in {"tags"} & cell["metadata"].keys()}
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}


def _without(notebook: dict, *tags: str) -> list[dict]:
    """Return the cells that have none of the tags."""
    return [cell for cell in notebook["cells"] if not {*tags} & {*cell["metadata"].get("tags", [])}]


def normalise(notebook: dict) -> dict:
    """Remove from an executed notebook what differs from run to run; it is changed in place and returned.

    Times, papermill's notes, stderr (progress lines), memory addresses and time-stamped log lines go. Pieces
    of stdout are joined, since where a stream is cut is chance; the injected cell gets a fixed id. Code,
    results and pictures stay.
    """
    notebook["metadata"].pop("papermill", None)
    notebook["cells"] = _without(notebook, ERROR_MARK)
    for cell in notebook["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        if INJECTED in cell["metadata"].get("tags", []):
            cell["id"] = INJECTED
        if "outputs" in cell:
            cell["outputs"] = _lasting(cell["outputs"])
    return notebook


def _lasting(outputs: list[dict]) -> list[dict]:
    """Return a cell's outputs without what differs from run to run."""
    kept: list[dict] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if "text" in output and kept and "text" in kept[-1]:
            kept[-1]["text"] += output["text"]
        else:
            kept.append(output)
    for output in kept:
        for place, key in ((output, "text"), (output.get("data", {}), "text/plain")):
            if key in place:
                place[key] = _ADDRESS.sub("0x…", _LOG_LINE.sub("", place[key]))
    return [output for output in kept if output.get("text", True)]


@contextlib.contextmanager
def _alone(label: str) -> Iterator[None]:
    """Allow one run of a stage at a time; a killed `dvc` may leave one behind."""
    with (paths.runs("notebooks") / f"{label}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"[{label}] another run of this stage is under way; waiting for it to end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            print(f"[{label}] {lock.name}: {error}; start no other run of this stage now", file=sys.stderr)
        yield


def _raw(notebook: str, parameters: dict[str, str]) -> Path:
    """Return the file of the raw run, whose stem names the run."""
    label = "_".join([notebook.removesuffix(".ipynb"), *parameters.values()])
    return paths.runs("notebooks") / f"{label}.ipynb"


def run(name: str, profile: str | None = None, extra: dict[str, str] | None = None) -> Path:
    """Execute `notebooks/<name>.ipynb` and keep its normalised copy.

    `profile` is the section of params.yaml (None: the one it names). The values of the `extra` parameters,
    such as `{"benchmark": "loki"}`, join the name of the copy, which is returned (in `artifacts/executed/`).

    Raises:
        UserError: unknown notebook, profile or parameter, or params.yaml does not fit. Nothing has run then.
        PapermillExecutionError: a cell failed (also when it raised UserError: see `main`).
    """
    source, extra, parent = notebook_path(name), extra or {}, os.getppid()
    params = load_params(profile)  # a typo in params.yaml stops here, before slow imports and a kernel
    parameters = ({"profile": profile} if profile else {}) | extra
    try:
        cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
        (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, LookupError, TypeError) as error:
        cure = "remove conflict marks that a merge left (<<<<<<<), or `git checkout notebooks`"
        raise UserError(f"{source} is no notebook with one cell tagged parameters: {error}", cure) from error
    names = re.findall(r"^(\w+) *=", "".join(cell["source"]), re.MULTILINE)
    if unknown := [key for key in parameters if key not in names]:
        it_has = f"it has: {', '.join(names) or 'none at all'}"
        raise UserError(f"{source.name} has no parameter {unknown[0]!r}", it_has)
    # jsonschema, which nbformat uses, parses a grammar of addresses (1.2 s) that no notebook needs.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    raw = _raw(source.stem, extra)
    label = raw.stem
    set_environment()
    os.environ["FAKEVLM_STAGE"] = f"{params.profile}/{label}"  # where `paths.work` is, for the kernel too
    with _alone(label):
        raw.unlink(missing_ok=True)  # a failure must not leave an older run looking like this one
        try:
            executed = papermill.execute_notebook(
                source,
                raw,
                parameters,
                kernel_name="python3",
                cwd=paths.root(),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                start_timeout=300,  # seconds; a busy machine is slow, not broken
                iopub_timeout=300,
                # else ipykernel warns that it talks to localhost unencrypted, and of being shut down
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except PapermillExecutionError as error:
            if error.ename != LeftOut.__name__:
                raise
            print(f"[{label}] {error.evalue}", file=sys.stderr)
            executed = nbformat.read(raw, as_version=4)
        copy = paths.artifacts("executed", raw.name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_suffix(".part")
        part.write_text(nbformat.writes(normalise(executed)) + "\n", encoding="utf-8")
        part.replace(copy)
        if os.getppid() == parent:  # else DVC was killed and records nothing: the next run goes on from here
            shutil.rmtree(paths.work())  # after a failure the next run goes on from it
    return copy


def _explain(error: Exception, name: str, raw: Path) -> int:
    """Say what went wrong in a notebook, and return the exit code; raise what is no error of a notebook."""
    import nbformat
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError, strip_color

    if isinstance(error, DeadKernelError) or str(error).startswith("Kernel died"):  # before it was ready
        print(f"\n{name}: its kernel died ({error}). Short of memory?", file=sys.stderr)
    elif not isinstance(error, PapermillExecutionError):
        raise error
    elif error.ename == UserError.__name__:
        print(f"\n{name}: {error.evalue}", file=sys.stderr)
        return USER_ERROR
    elif reason := refused("\n".join(error.traceback), paths.root()):
        print(f"\n{name}: {UserError(f'{reason} ({error.evalue})', GO_ON)}", file=sys.stderr)
        return USER_ERROR
    else:
        # Counted as in the source notebook: papermill adds cells of its own to the raw run.
        cells = enumerate(_without(nbformat.read(raw, as_version=4), ERROR_MARK, INJECTED), 1)
        number, cell = next((n, cell) for n, cell in cells if cell["metadata"]["papermill"]["exception"])
        where = f'cell {number} ("{cell["id"]}")'
        print(f"\n{name} failed in {where}; the end of its traceback:\n", file=sys.stderr)
        text = "\n".join(error.traceback)
        lines = (text if sys.stderr.isatty() else strip_color(text)).splitlines()
        print("\n".join([line for line in lines if line.strip()][-TRACEBACK_LINES:]), file=sys.stderr)
    print(f"\nThe run up to there: {raw}", file=sys.stderr)
    return FAILED


def main(notebook: str, profile: str | None, parameters: dict[str, str]) -> int:
    """Run a stage, tell the user how it ended, and return the exit code."""
    label = " ".join([notebook, *parameters.values()])
    started = time.monotonic()
    try:
        copy = run(notebook, profile, parameters)
        print(f"[{label}] {time.monotonic() - started:.0f} s → {copy.relative_to(paths.root())}", flush=True)
        return DONE
    except UserError as error:
        print(f"{label}: {error}", file=sys.stderr)
        status = USER_ERROR
    except KeyboardInterrupt:
        print(f"\n{label}: interrupted; `dvc repro` goes on from here", file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        status = _explain(error, notebook, _raw(notebook, parameters))
    if "DVC_EXP_NAME" in os.environ and ".dvc" not in paths.root().parts:  # there it is a folder of its own
        print("To go back: git checkout params.yaml dvc.lock figures && dvc checkout", file=sys.stderr)
    return status

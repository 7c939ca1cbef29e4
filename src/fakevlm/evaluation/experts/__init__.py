"""Expert detectors, the baselines of Tables 2, 3 and 5, trained here on FakeClue's training split.

Three ways to look at an image: `CNNSpot` at pixels, `UnivFD` through CLIP's eyes, `Frequency` at the spectrum. All share one
interface (`base.Expert`) and are kept as safetensors and JSON. The modules that need torch are imported when one is asked for.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation.experts.base import CONFIG, Expert
from fakevlm.inference.batchwise import code, fingerprint

NAMES = ("cnnspot", "univfd", "frequency")


def _class(name: str) -> type[Expert]:
    if name == "cnnspot":
        from fakevlm.evaluation.experts.cnnspot import CNNSpot

        return CNNSpot
    if name == "univfd":
        from fakevlm.evaluation.experts.univfd import UnivFD

        return UnivFD
    if name == "frequency":
        from fakevlm.evaluation.experts.frequency import Frequency

        return Frequency
    raise UserError(f"no expert is called {name!r}", f"choose one of: {', '.join(NAMES)}")


def make_expert(name: str, params: Params) -> Expert:
    """An untrained expert.

    Args:
        name: one of `NAMES`.
        params: its sizes are in `params.experts`; UnivFD looks through `params.base`.
    """
    kind = _class(name)
    if name == "univfd":
        return kind(params.base)
    return kind(params.experts.cnnspot if name == "cnnspot" else params.experts.spectrum_size)


def load_expert(folder: Path) -> Expert:
    """An expert that `Expert.save` (or `train_experts`) wrote.

    Raises:
        UserError: there is none, or its files are unreadable.
    """
    try:
        name = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["expert"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"no expert in {folder}: {error!r}", "train it: `dvc repro experts`") from error
    return _class(name).load(folder)


def train_experts(
    params: Params,
    train: Sequence[Record],
    val: Sequence[Record],
    out: Path,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Trains and saves the experts in `out/<name>/` and their log in `out/log.csv`; returns the log.

    Args:
        names: of `NAMES`; those of `params.experts.train` by default.

    Killed and called again, it takes up the experts that were done, and the one under way where it can (`Expert.fit`).
    The log has the columns of `Expert.fit`'s and `expert` before them.
    """
    work, logs = paths.runs("experts", params.profile) / _digest(params, train, val), []
    for name in params.experts.train if names is None else names:
        place, kind = work / name, _class(name)
        done = place / "log.csv"  # written last
        if not done.is_file():
            expert = make_expert(name, params)
            log = expert.fit(train, val, params, params.seed, place)
            expert.save(place / "expert")
            log.to_csv(done.with_suffix(".part"), index=False)
            done.with_suffix(".part").replace(done)
        shutil.copytree(place / "expert", out / name, dirs_exist_ok=True)
        log = pd.read_csv(done, float_precision="round_trip")
        log.insert(0, "expert", kind.title)
        logs.append(log)
    log = pd.concat(logs, ignore_index=True)
    log.to_csv(out / "log.csv", index=False)
    return log


def _digest(params: Params, train: Sequence[Record], val: Sequence[Record]) -> str:
    """Names a run by all that decides what comes of it: settings, data, the base that UnivFD looks through, and the code."""
    base = paths.resolve(params.base)
    parts = [
        params.experts.model_dump(mode="json", exclude={"train"}),
        params.seed,
        fingerprint(base) if base.is_dir() else str(base),
    ]
    digest = hashlib.sha256(json.dumps([*parts, code()], sort_keys=True).encode())
    for records in (train, val):
        digest.update(columns_of(records, ["sha256", "label"]).to_csv(index=False).encode())
    return digest.hexdigest()[:16]

"""Expert detectors, the baselines of Tables 2, 3 and 5, trained here on FakeClue's training split.

`CNNSpot` sees pixels, `UnivFD` the features of a CLIP tower, `Frequency` the spectrum.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file

from fakevlm import cache
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation.experts.base import CONFIG, WEIGHTS, Expert
from fakevlm.evaluation.experts.cnnspot import CNNSpot
from fakevlm.evaluation.experts.linear import Frequency, UnivFD

EXPERTS: dict[str, type[Expert]] = {expert.name: expert for expert in (CNNSpot, UnivFD, Frequency)}


def make_expert(name: str, params: Params) -> Expert:
    """Return an untrained expert of `EXPERTS`, sized by `params.experts`; UnivFD uses `params.base`."""
    experts = params.experts
    settings = {"cnnspot": experts.cnnspot, "univfd": params.base, "frequency": experts.spectrum_size}
    return EXPERTS[name](settings[name])


def load_expert(folder: Path) -> Expert:
    """Return the expert that `Expert.save` wrote.

    Raises:
        UserError: there is none, or its files are unreadable.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, weights = EXPERTS[config["expert"]], load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"no expert in {folder}: {error!r}", "train it: `dvc repro experts`") from error
    return kind.restore(weights, config)


def train_experts(
    params: Params,
    train: Sequence[Record],
    val: Sequence[Record],
    out: Path,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Train and save the experts in `out/<name>/` and their log in `out/log.csv`; return the log.

    After a kill it goes on from the last epoch of CNNSpot and with the features that are computed already.

    Args:
        params: the profile.
        train, val: labelled records of both classes.
        out: the output folder.
        names: of `EXPERTS`; `params.experts.train` by default.

    Returns:
        The log of `Expert.fit` with a column `expert` before the others.
    """
    logs = []
    with cache.work() as work:
        run = _key(params, train, val)
        for name in params.experts.train if names is None else names:
            expert = make_expert(name, params)
            log = expert.fit(train, val, params, work, cache.key(run, name))
            expert.save(out / name)
            log.insert(0, "expert", expert.title)
            logs.append(log)
    pd.concat(logs, ignore_index=True).to_csv(out / "log.csv", index=False)
    return pd.read_csv(out / "log.csv", float_precision="round_trip")


def _key(params: Params, train: Sequence[Record], val: Sequence[Record]) -> str:
    """Name a run by all that decides its weights: settings, data, first weights, and the code."""
    data = [columns_of(records, ["sha256", "label"]).to_csv(index=False) for records in (train, val)]
    code = "fakevlm.evaluation.experts", "fakevlm.evaluation.vision", "fakevlm.data.records"
    return cache.key(
        params.experts.model_dump(mode="json", exclude={"train"}),
        params.seed,
        [cache.model_version(name) for name in (params.base, params.experts.cnnspot.model) if name],
        cache.code_version(*code, "fakevlm.model.llava"),
        [hashlib.sha256(table.encode()).hexdigest() for table in data],
    )

"""The methods that are compared, each from the name that tables print to answers about records.

Language models (FakeVLM, its untuned base) give words, a verdict and P(fake). Detectors (the linear-head variant of Table 6
and the experts) give P(fake) alone: their verdict is fake from one half on, and they have no words.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from fakevlm import paths
from fakevlm.config.evaluation import Method
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take
from fakevlm.errors import UserError
from fakevlm.inference.batchwise import Look, Viewer, fingerprint
from fakevlm.inference.endpoint import need_key
from fakevlm.model import verdict

if TYPE_CHECKING:
    from fakevlm.inference.engines import Speaker

FAKEVLM, UNTUNED, HEAD = "FakeVLM", "LLaVA (untuned)", "LLaVA + Linear Head"
# FakeVLM once more, asked as its authors ask their released weights, whatever `evaluate.prompt` says.
AUTHORS = "FakeVLM (authors' prompt)"
EXPERTS = {"CNNSpot": "cnnspot", "UnivFD": "univfd", "Frequency": "frequency"}
METHODS = get_args(Method)
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def need(stage: str, *parts: str) -> Path:
    """A folder that an earlier stage makes.

    Raises:
        UserError: it is not there yet; names the stage.
    """
    path = paths.artifacts(*parts)
    if not path.is_dir() or not any(path.iterdir()):
        raise UserError(f"no model in {path}", f"make it first: `dvc repro {stage}`")
    return path


def tuned(params: Params) -> str | Path:
    """FakeVLM's weights: those that `evaluate.model` names, else the ones that stage finetune made.

    Raises:
        UserError: neither is there.
    """
    if params.evaluate.model is None and params.finetune is None:
        raise UserError(
            f"{params.profile}: FakeVLM has no weights, for the profile leaves stage finetune out",
            f"give {params.profile}.finetune in params.yaml, or name weights in evaluate.model",
        )
    return params.evaluate.model or need("finetune@explanation", "finetune", "explanation", "model")


def check(params: Params) -> None:
    """Whether all methods can run: better now than after an hour of the first.

    Raises:
        UserError: a method's model is not there yet, or the key of the servers that have it is not set.
    """
    if FAKEVLM in params.evaluate.methods and params.evaluate.servers:
        need_key(params.evaluate.servers, "evaluate.servers")
    for method in params.evaluate.methods:
        if method in (FAKEVLM, AUTHORS):
            tuned(params)
        elif method != UNTUNED:
            _weights(method, params)


def _weights(method: str, params: Params) -> Path:
    """The folder of a detector that a stage trains."""
    if method == HEAD:
        return need("finetune@head", "finetune", "head", "model")
    return need("experts", "experts", EXPERTS[method])


def speaker(method: str, params: Params) -> tuple[str | Path, "Speaker"]:
    """A language model of `METHODS`: its weights' folder or name, and who asks it.

    FakeVLM answers behind `evaluate.servers` where there are some: they serve it, with its chat template. All else is asked here
    or on the profile's cluster.

    Raises:
        UserError: its model is not there yet.
    """
    from fakevlm.inference import engines

    name = params.base if method == UNTUNED else tuned(params)
    prompt = "bare" if method == AUTHORS else params.evaluate.prompt
    if method == FAKEVLM and params.evaluate.servers:
        from fakevlm.inference import served

        return name, served.speaker(params, name, method, prompt)
    return name, engines.speaker(params, name, method, prompt)


def detector(method: str, params: Params) -> Viewer:
    """A detector of `METHODS`.

    Raises:
        UserError: its model is not there yet.
    """
    folder, precision = _weights(method, params), PRECISIONS[params.evaluate.precision]
    # UnivFD looks through the base.
    key = [method, fingerprint(folder), precision, params.base]
    return viewer(partial(_detector, method, folder, precision), key, params)


def _detector(method: str, folder: Path, precision: str) -> Any:
    if method == HEAD:
        from fakevlm.model.head import load_head

        return load_head(folder, precision)
    from fakevlm.evaluation.experts import load_expert

    return load_expert(folder)


def viewer(load: Callable[[], Any], key: Any, params: Params) -> Viewer:
    """Whatever has `predict(images)` → P(fake), on the profile's cluster or here.

    Args:
        load: see `batchwise.Viewer`.
        key: see there.
        params: the profile.
    """
    return Viewer(partial(_look, load), key, params.evaluate.batch_size, params.cluster)


def _look(load: Callable[[], Any]) -> Look:
    detector = load()
    return lambda images: {"p_fake": np.asarray(detector.predict(images), np.float64)}


def detect(viewer: Viewer, records: Sequence[Record], journal: Path | None, desc: str) -> pd.DataFrame:
    """A detector's answers: no text, P(fake), a verdict at one half. Each image is looked at once, however often asked about."""
    known = columns_of(records, ["id", "sha256"])
    images, names = pd.factorize(known["sha256"])
    found = np.zeros(len(names))
    if len(names):
        first = take(records, np.unique(images, return_index=True)[1])
        found = verdict.settled(viewer.look(first, journal, desc)["p_fake"])
    p_fake = found[images]
    return pd.DataFrame(
        {
            "id": known["id"],
            "text": None,
            "p_fake": p_fake,
            "verdict": np.where(p_fake >= 0.5, "fake", "real"),
            "forced": False,
        }
    )


def answers(
    method: str, params: Params, records: Sequence[Record], journal: Path | None = None
) -> pd.DataFrame:
    """A method's answers about records, in their order: id, text, p_fake, verdict, forced.

    Args:
        method: of `METHODS`.
        params: the profile.
        records: what to look at; each is asked its own question.
        journal: folder for work in progress.

    Raises:
        UserError: there is no such method, or its model is not there yet.
    """
    if method not in METHODS:
        raise UserError(f"no method {method!r}", f"choose among: {', '.join(METHODS)}")
    if method not in (FAKEVLM, AUTHORS, UNTUNED):
        return detect(detector(method, params), records, journal, method)
    from fakevlm.inference.engines import journal_of

    name, ask = speaker(method, params)
    kept = journal_of(journal, method, name) if journal is not None else None
    return ask(records, params.evaluate.max_new_tokens, kept)

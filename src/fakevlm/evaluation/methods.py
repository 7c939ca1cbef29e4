"""The methods that are compared, by the names that tables print.

Language models (FakeVLM, its untuned base) give words, a verdict and P(fake). Detectors (the linear-head
variant of Table 6 and the experts) give P(fake) alone: their verdict is fake from one half on.
"""

from functools import partial
from pathlib import Path
from typing import Any

from fakevlm import paths
from fakevlm.cache import model_version
from fakevlm.config.params import Method, Params
from fakevlm.errors import UserError
from fakevlm.evaluation.detectors import Answers, detector
from fakevlm.inference.predict import predict

FAKEVLM, UNTUNED, HEAD = "FakeVLM", "LLaVA (untuned)", "LLaVA + Linear Head"
# FakeVLM once more, asked as its authors ask their released weights, whatever `evaluate.prompt` says.
AUTHORS = "FakeVLM (authors' prompt)"
EXPERTS = {"CNNSpot": "cnnspot", "UnivFD": "univfd", "Frequency": "frequency"}


def need(stage: str, *parts: str) -> Path:
    """Return a folder that an earlier stage makes.

    Raises:
        UserError: it is not there yet; names the stage.
    """
    path = paths.artifacts(*parts)
    if not path.is_dir() or not any(path.iterdir()):
        raise UserError(f"no model in {path}", f"make it first: `dvc repro {stage}`")
    return path


def tuned(params: Params) -> str | Path:
    """Return FakeVLM's weights: those that `evaluate.model` names, else the ones that stage finetune made.

    Raises:
        UserError: neither is there.
    """
    if params.evaluate.model is None and params.finetune is None:
        raise UserError(
            f"{params.profile}: FakeVLM has no weights, for the profile leaves stage finetune out",
            f"give {params.profile}.finetune in params.yaml, or name weights in evaluate.model",
        )
    return params.evaluate.model or need("finetune@explanation", "finetune", "explanation", "model")


def method(name: Method, params: Params, max_new_tokens: int | None = None) -> Answers:
    """Return who answers for a method of `evaluate.methods`.

    FakeVLM answers behind `evaluate.servers` where there are some: they serve it, with its chat template. All
    else is computed here or on the profile's cluster.

    Args:
        name: the method.
        params: the profile.
        max_new_tokens: longest answer of a language model; None: `evaluate.max_new_tokens`.

    Raises:
        UserError: its model is not there yet, or the servers' key is not set.
    """
    from fakevlm.inference import generate
    from fakevlm.model.llava import DTYPES

    settings = params.evaluate
    precision = DTYPES[settings.precision]
    if name == HEAD or name in EXPERTS:
        stage = ("finetune@head", "finetune", "head", "model")
        folder = need(*stage) if name == HEAD else need("experts", "experts", EXPERTS[name])
        key = [name, model_version(folder), precision]
        if name == "UnivFD":  # it sees through the base
            key.append(model_version(params.base))
        return detector(name, partial(_load, name, folder, precision), key, params)
    weights = params.base if name == UNTUNED else tuned(params)
    prompt = "bare" if name == AUTHORS else settings.prompt
    longest = max_new_tokens or settings.max_new_tokens
    if name == FAKEVLM and settings.servers:
        from fakevlm.inference.served import Served

        served = Served(settings.servers, name, weights, longest, prompt)
        return lambda records, cache: served.predict(records)
    sizes = {"batch_size": settings.batch_size, "max_new_tokens": longest}
    llava = generate.predictor(weights, precision, **sizes, prompt=prompt)
    return partial(predict, llava, cluster=params.cluster, desc=name)


def _load(name: str, folder: Path, precision: str) -> Any:
    """Return a detector that a stage trains."""
    if name == HEAD:
        from fakevlm.model.head import load_head

        return load_head(folder, precision)
    from fakevlm.evaluation.experts import load_expert

    return load_expert(folder)

"""The methods that are compared, each from the name that tables print to answers about records.

Language models (FakeVLM, its untuned base) give words, a verdict and P(fake). Detectors (the linear-head
variant of Table 6 and the experts) give P(fake) alone: their verdict is fake from one half on, and they have
no words.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from fakevlm import paths
from fakevlm.cache import Cache, code_version, model_version
from fakevlm.config.evaluation import Benchmark, Method
from fakevlm.config.params import Baseline, Params, PublishedExpert
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take
from fakevlm.errors import UserError
from fakevlm.inference.predict import Columns, Predictor, predict
from fakevlm.model import verdict

FAKEVLM, UNTUNED, HEAD = "FakeVLM", "LLaVA (untuned)", "LLaVA + Linear Head"
# FakeVLM once more, asked as its authors ask their released weights, whatever `evaluate.prompt` says.
AUTHORS = "FakeVLM (authors' prompt)"
EXPERTS = {"CNNSpot": "cnnspot", "UnivFD": "univfd", "Frequency": "frequency"}
METHODS = get_args(Method)
# records and cache -> a row a record, in their order: id, text, p_fake, verdict, forced, perhaps outcome
Answers = Callable[[Sequence[Record], Cache | None], pd.DataFrame]
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


def _weights(method: str) -> Path:
    """The folder of a detector that a stage trains."""
    if method == HEAD:
        return need("finetune@head", "finetune", "head", "model")
    return need("experts", "experts", EXPERTS[method])


def method(name: str, params: Params, max_new_tokens: int | None = None) -> Answers:
    """Return who answers for a method of `METHODS`.

    FakeVLM answers behind `evaluate.servers` where there are some: they serve it, with its chat template. All
    else is computed here or on the profile's cluster.

    Args:
        name: the method.
        params: the profile.
        max_new_tokens: longest answer of a language model; None: `evaluate.max_new_tokens`.

    Raises:
        UserError: there is no such method, its model is not there yet, or the servers' key is not set.
    """
    if name not in METHODS:
        raise UserError(f"no method {name!r}", f"choose among: {', '.join(METHODS)}")
    if name not in (FAKEVLM, AUTHORS, UNTUNED):
        folder, precision = _weights(name), PRECISIONS[params.evaluate.precision]
        key = [name, model_version(folder), precision]
        if name == "UnivFD":  # it looks through the base
            key.append(model_version(params.base))
        return detector(name, partial(_detector, name, folder, precision), key, params)
    weights = params.base if name == UNTUNED else tuned(params)
    prompt = "bare" if name == AUTHORS else params.evaluate.prompt
    return language_model(name, weights, params, prompt, max_new_tokens)


def language_model(
    name: str,
    weights: str | Path,
    params: Params,
    prompt: str = "template",
    max_new_tokens: int | None = None,
) -> Answers:
    """Return who answers for a LLaVA: FakeVLM's servers, this process or the profile's cluster."""
    from fakevlm.inference import generate

    settings = params.evaluate
    longest = max_new_tokens or settings.max_new_tokens
    if name == FAKEVLM and settings.servers:
        from fakevlm.inference.served import Served

        served = Served(settings.servers, name, weights, longest, prompt)
        return lambda records, cache: generate.frame(records, served.predict(records))
    sizes = {"batch_size": settings.batch_size, "max_new_tokens": longest}
    llava = generate.predictor(weights, PRECISIONS[settings.precision], **sizes, prompt=prompt)
    return lambda records, cache: generate.frame(
        records, predict(llava, records, cache, cluster=params.cluster, desc=name)
    )


def _detector(name: str, folder: Path, precision: str) -> Any:
    if name == HEAD:
        from fakevlm.model.head import load_head

        return load_head(folder, precision)
    from fakevlm.evaluation.experts import load_expert

    return load_expert(folder)


def detector(name: str, load: Callable[[], Any], key: list[Any], params: Params) -> Answers:
    """Return who answers for whatever has `predict(images)` → P(fake): no text, a verdict at one half.

    Each image is judged once, however many questions are asked about it.

    Args:
        name: of the method.
        load: see `Predictor`.
        key: what identifies the weights.
        params: the profile; of it, cluster, base and evaluate.batch_size.
    """
    code = code_version(
        "fakevlm.evaluation.experts", "fakevlm.evaluation.detectors", "fakevlm.model.head",
        "fakevlm.model.collate", "fakevlm.model.chat", "fakevlm.data.records",
    )  # fmt: skip
    predictor = Predictor(partial(_judge, load), [*key, code], params.evaluate.batch_size)

    def answers(records: Sequence[Record], cache: Cache | None) -> pd.DataFrame:
        frame = columns_of(records, ["id", "sha256"])
        images, hashes = pd.factorize(frame["sha256"])
        first = take(records, np.unique(images, return_index=True)[1])
        columns = predict(predictor, first, cache, cluster=params.cluster, desc=name)
        p_fake = verdict.round_log_odds(columns.get("p_fake", np.zeros(len(hashes))))[images]
        verdicts = np.where(p_fake >= 0.5, "fake", "real")
        return pd.DataFrame(
            {"id": frame["id"], "text": None, "p_fake": p_fake, "verdict": verdicts, "forced": False}
        )

    return answers


def _judge(load: Callable[[], Any]) -> Callable[[list], Columns]:
    model = load()
    return lambda images: {"p_fake": np.asarray(model.predict(images), np.float64)}


def meant_for(entries: Sequence[Any], benchmark: str) -> list[Any]:
    """The entries that name this benchmark, or none and so mean all."""
    return [entry for entry in entries if entry.benchmarks is None or benchmark in entry.benchmarks]


def methods(params: Params, benchmark: Benchmark) -> dict[str, Answers]:
    """Return the table of methods: `evaluate.methods`, published detectors, models behind servers.

    Raises:
        UserError: a model, a file or a key is missing. Better known now than after hours of other methods.
    """
    from fakevlm.evaluation import baselines, detectors

    settings = params.evaluate
    experts: list[PublishedExpert] = meant_for(settings.experts, benchmark)
    served: list[Baseline] = meant_for(settings.baselines, benchmark)
    return (
        {name: method(name, params) for name in settings.methods}
        | {expert.name: detectors.detector(expert, params) for expert in experts}
        | {baseline.name: baselines.baseline(baseline, params.seed) for baseline in served}
    )

"""Detectors as rows of the tables: whatever has `predict(images)` → P(fake).

Stages train those in `experts` and `model.head`. Published ones (Tables 3 and 5) come with their authors'
weights: each module here says which files. The paper's other methods (AntifakePrompt, SIDA; FWA, Face X-ray,
SRM, CDFA of DeepfakeBench) enter by scores (`read_scores`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from fakevlm import paths, plugins
from fakevlm.cache import Cache, code_version, file_digest, model_version
from fakevlm.config.params import Params, PublishedExpert
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take
from fakevlm.errors import UserError
from fakevlm.inference.predict import Columns, Predictor, predict
from fakevlm.model.verdict import round_log_odds
from fakevlm.progress import say

# records, cache → columns of one row a record: text, p_fake, verdict, forced, perhaps outcome, verdict_forced
Answers = Callable[[Sequence[Record], Cache | None], Mapping[str, Any]]

DETECTORS = {
    "cnnspot": "fakevlm.evaluation.detectors.base:PublishedCNNSpot",
    "univfd": "fakevlm.evaluation.detectors.base:PublishedUnivFD",
    "gramnet": "fakevlm.evaluation.detectors.gramnet:GramNet",
    "fusing": "fakevlm.evaluation.detectors.fusing:Fusing",
    "lnp": "fakevlm.evaluation.detectors.lnp:LNP",
}


def load_detector(spec: PublishedExpert) -> Any:
    """Return the detector of an entry with weights, or with a class of its own.

    Raises a UserError where a file is missing, no plain checkpoint, or one of another kind.
    """
    files = [name for name in (spec.weights, spec.features) if name is not None]
    return plugins.load(spec.object or spec.kind, DETECTORS, "evaluate.experts[].object")(*files)


def published(spec: PublishedExpert, params: Params) -> Answers:
    """Return who answers for an entry of `evaluate.experts`: its detector, or its file of scores.

    Raises a UserError where a file is missing.
    """
    files = spec.model_dump(include={"weights", "features", "scores"}, exclude_none=True)
    places = {key: paths.resolve(name) for key, name in files.items()}
    for key, place in places.items():
        clip = key == "features" and spec.kind == "univfd"  # a folder, or a name on the hub
        if not clip and not place.is_file():
            cure = f"get it, or correct evaluate.experts[].{key}"
            raise UserError(f"expert {spec.name}: no file {files[key]}", cure)
    if spec.scores is not None:
        if not places["scores"].is_relative_to(paths.root() / "scores"):
            what = f"expert {spec.name}: {spec.scores} does not lie in {paths.root() / 'scores'}"
            raise UserError(what, "move it there: that folder is what DVC checks for changes")
        return lambda records, cache: read_scores(spec, records)
    # Workers may run elsewhere: they get absolute paths.
    placed = spec.model_copy(update={key: str(place) for key, place in places.items() if place.exists()})
    versions = [file_digest(p) if p.is_file() else model_version(files[key]) for key, p in places.items()]
    key = [spec.kind or spec.object, spec.revision, *versions]
    return detector(spec.name, partial(load_detector, placed), key, params)


def detector(name: str, load: Callable[[], Any], key: list[Any], params: Params) -> Answers:
    """Return who answers for whatever has `predict(images)` → P(fake): no text, a verdict at one half.

    Each image is judged once, however many questions are asked about it. `load` is called once in each
    process that computes; `key` identifies the weights.
    """
    code = code_version(
        "fakevlm.evaluation.experts", "fakevlm.evaluation.detectors", "fakevlm.model.head",
        "fakevlm.model.collate", "fakevlm.model.chat", "fakevlm.model.llava", "fakevlm.data.records",
    )  # fmt: skip
    predictor = Predictor(partial(_columns, load), [*key, code], params.evaluate.batch_size)

    def answers(records: Sequence[Record], cache: Cache | None) -> Columns:
        images, hashes = pd.factorize(columns_of(records, ["sha256"])["sha256"])
        first = take(records, np.unique(images, return_index=True)[1])
        columns = predict(predictor, first, cache, cluster=params.cluster, desc=name)
        p_fake = round_log_odds(columns.get("p_fake", np.zeros(len(hashes))))[images]
        verdict = np.where(p_fake >= 0.5, "fake", "real")
        return {"p_fake": p_fake, "verdict": verdict, "text": None, "forced": False}

    return answers


def _columns(load: Callable[[], Any]) -> Callable[[list], Columns]:
    model = load()
    return lambda images: {"p_fake": np.asarray(model.predict(images), np.float64)}


def _read(spec: PublishedExpert) -> pd.Series:
    """Return values by id of an entry's CSV; their name is the column's."""
    path = paths.resolve(spec.scores)
    where = f"expert {spec.name}: {path}"
    try:
        frame = pd.read_csv(path, dtype={"id": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{where} is no readable CSV: {error}", "see evaluate.experts[].scores") from error
    columns = [column for column in ("p_fake", "score") if column in frame]
    if "id" not in frame or len(columns) != 1:
        cure = "give it `id` and one of `p_fake`, `score`"
        raise UserError(f"{where} has the columns {', '.join(frame.columns)}", cure)
    values = pd.to_numeric(frame[columns[0]], errors="coerce").astype(float)
    probability = values.name == "p_fake"
    bad = ~np.isfinite(values) | frame["id"].isna() | (~values.between(0, 1) & probability)
    if bad.any():
        number = "number from 0 to 1" if probability else "number"
        what = f"{where}, line {bad.argmax() + 2}: no id, or {values.name} is no {number}"  # the head is 1
        cure = f"{bad.sum()} such lines: correct them, or leave the images out of all methods"
        raise UserError(what, cure)
    if twice := frame["id"][frame["id"].duplicated()].tolist():
        raise UserError(f"{where} names {twice[0]!r} twice", "keep one row an image")
    if not probability and spec.threshold is None:
        cure = "say in evaluate.experts[].threshold from which score on an image is fake"
        raise UserError(f"{where} has scores without a threshold", cure)
    return values.set_axis(frame["id"])


def read_scores(spec: PublishedExpert, records: Sequence[Record]) -> pd.DataFrame:
    """Return the answers about n records that an entry's CSV holds: text, p_fake, verdict, forced in n rows.

    It has the columns `id`, a record's id or its image's path, and either `p_fake` (0–1, fake from the
    entry's `threshold` or from one half on) or `score` (any number, fake from the `threshold` on). It may
    serve several benchmarks: rows about other images are counted on stderr. A `score` s becomes
    p_fake = ½ + d / (2 + 2|d|) with d = s − threshold: in the same order, ½ at the threshold, but
    no probability. Raises a UserError where the file does not fit, or some record has no row.
    """
    values, ids = _read(spec), columns_of(records, ["id"])["id"]
    images = ids.str.split("#").str[0]
    keys = ids.where(ids.isin(values.index), images)
    missing = sorted(set(keys) - set(values.index))
    others = len(set(values.index) - set(keys))
    if missing:
        raise UserError(
            f"expert {spec.name}: {spec.scores} lacks {len(missing)} of {images.nunique()} images, the first "
            f"{missing[0]!r}; {others} of its {len(values)} rows are about no image of this benchmark",
            "ids are records' ids or image paths; if it is for some benchmarks only, list those in "
            "evaluate.experts[].benchmarks",
        )
    if others:
        say(f"{spec.name}: {others} rows of {spec.scores} are about other images")
    scores = values[keys].to_numpy()
    distance = scores - (0.5 if spec.threshold is None else spec.threshold)
    p_fake = scores if values.name == "p_fake" else 0.5 + distance / (2 + 2 * np.abs(distance))
    verdict = np.where(distance >= 0, "fake", "real")
    return pd.DataFrame({"text": None, "p_fake": p_fake, "verdict": verdict, "forced": False})

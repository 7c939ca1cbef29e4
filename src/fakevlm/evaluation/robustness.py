"""How detectors bear what happens to images on their way: recompression, resizing, blur, noise, cropping.

The paper announces this study for its supplement, which has not been published; kinds and strengths are ours
(params.yaml). All methods see the same perturbed images of the same sample of FakeClue's test split, and the
same bootstrap draws, so that differences between methods and between strengths are differences between them
and not between samples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.cache import Cache, work
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks, detectors
from fakevlm.evaluation.methods import EXPERTS, FAKEVLM, Answers, method
from fakevlm.evaluation.perturbations import KINDS, Perturbed
from fakevlm.evaluation.scores import COLUMNS, score
from fakevlm.inference import ray_cluster

NONE = "none"
SCHEMA = pa.schema(
    [
        pa.field("method", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("text", pa.string()),
        pa.field("p_fake", pa.float64(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("forced", pa.bool_(), nullable=False),
    ]
)


def stratified(frame: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Return ids of about `count` rows, in order, stratified by label and category, at least one of each.

    Args:
        frame: id, label, category.
        count: how many; all if there are no more.
        seed: of the draw.
    """
    if len(frame) <= count:
        return frame.id.tolist()
    shuffled = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    groups = shuffled.groupby(["label", "category"], dropna=False, sort=True)
    kept = [group.id.iloc[: max(1, round(count * len(group) / len(frame)))] for _, group in groups]
    chosen = set(pd.concat(kept))
    return [name for name in frame.id if name in chosen]


def sample(params: Params) -> Sequence[Record]:
    """Return `params.robustness.images` images of FakeClue's test split, stratified by label and category."""
    records = Records(benchmarks.folder("fakeclue"))
    known = records.frame(["id", "label", "category"])
    chosen = stratified(known, params.robustness.images, params.seed)
    return records.take(np.flatnonzero(known["id"].isin(chosen)))


def settings(params: Params) -> list[tuple[str, float]]:
    """All (kind, strength) of the profile, in its order."""
    section = params.robustness.model_dump()
    return [(kind, strength) for kind in KINDS for strength in section[kind]]


def tested(params: Params) -> dict[str, Answers]:
    """Return who answers: FakeVLM, the experts, and all published detectors with weights.

    Scores from a file do not cover perturbed images.

    Raises:
        UserError: a model is not there yet; the message names the stage that makes it.
    """
    # The verdict stands in the first sentence; the explanation after it is not scored here.
    longest, settings = params.robustness.max_new_tokens, params.evaluate
    names = [name for name in settings.methods if name == FAKEVLM or name in EXPERTS]
    weights = [spec for spec in settings.experts if spec.scores is None]
    return {name: method(name, params, longest) for name in names} | {
        spec.name: detectors.detector(spec, params) for spec in weights
    }


def study(
    params: Params, records: Sequence[Record], methods: Mapping[str, Answers], cache: Cache | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask every method about all perturbations of the records at once, so that workers load each model once.

    Args:
        params: of these, `seed`, `evaluate` and `robustness`.
        records: n test images.
        methods: by name.
        cache: of what is done already.

    Returns:
        predictions (columns of `SCHEMA`) and scores (those of `evaluation.scores`, with `jpeg=70`, …, `none`
        as subset), sorted as the methods and then the settings are.

    Raises:
        UserError: there is no method.
    """
    if not methods:
        raise UserError(
            f"{params.profile}.evaluate.methods names neither FakeVLM nor an expert",
            f"list one of: {FAKEVLM}, {', '.join(EXPERTS)}",
        )
    todo = settings(params)
    subsets = [NONE, *(f"{kind}={strength:g}" for kind, strength in todo)]
    known = columns_of(records, ["label", "category", "item"]).astype({"label": int})
    items = known.pop("item").tolist()
    images, frames = Perturbed(records, todo, params.seed), []
    for name, answers in methods.items():
        answered = answers(images, cache)
        for number, subset in enumerate(subsets):
            part = answered.iloc[number * len(records) : (number + 1) * len(records)].reset_index(drop=True)
            frames.append(part.assign(**known, method=name, subset=subset)[SCHEMA.names])
    return pd.concat(frames, ignore_index=True), _scores(params, frames, items)


def _scores(params: Params, frames: Sequence[pd.DataFrame], items: Sequence[str]) -> pd.DataFrame:
    rows = []
    for frame in frames:
        # Detection only: without references and truth no explanation is scored.
        asked = frame.assign(question=None, generator=None, reference="", item=list(items))
        scored = score(asked, {}, params, "fakeclue", families=("all",), encode=_no_words)
        rows.append(scored.assign(subset=frame.subset.iloc[0]))
    return pd.concat(rows, ignore_index=True)[COLUMNS]


def _no_words(texts: list[str]) -> np.ndarray:
    raise AssertionError(f"nothing should be encoded here, got {len(texts)} texts")


def run(params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The stage: writes `artifacts/robustness/predictions.parquet` and `scores.csv`, and returns both.

    Interrupted, it goes on where it stopped: see `fakevlm.cache`.

    Raises:
        UserError: records or a model are not there yet; the message names the stage that makes them.
    """
    with ray_cluster.connected(params.cluster), work() as cache:
        predicted, scored = study(params, sample(params), tested(params), cache)
    out = paths.artifacts("robustness")
    out.mkdir(parents=True, exist_ok=True)
    stored = pa.Table.from_pandas(predicted, SCHEMA, preserve_index=False).replace_schema_metadata()
    pq.write_table(stored, out / "predictions.parquet")
    scored.to_csv(out / "scores.csv", index=False, float_format="%.6f", lineterminator="\n")
    return predicted, scored

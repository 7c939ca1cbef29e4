"""How detectors bear what happens to images on their way: recompression, resizing, blur, noise, cropping.

The paper announces this study for its supplement, which has not been published; kinds and strengths are ours
(params.yaml). All methods see the same perturbed images of the same sample of FakeClue's test split, and the
same bootstrap draws, so that differences between methods and between strengths are differences between them
and not between samples.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fakevlm import paths
from fakevlm.cache import Cache, work
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks
from fakevlm.evaluation.detectors import Answers, published
from fakevlm.evaluation.methods import EXPERTS, FAKEVLM, method
from fakevlm.evaluation.perturbations import KINDS, perturbed
from fakevlm.evaluation.scores import COLUMNS, score
from fakevlm.inference import ray_cluster

SCHEMA = benchmarks.schema(
    "method", "subset", "id", "label", "category?", "text?", "p_fake", "verdict", "forced"
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
    groups = shuffled.groupby(["label", "category"], dropna=False)
    chosen = pd.concat([group.id.head(max(1, round(count * len(group) / len(frame)))) for _, group in groups])
    return frame.id[frame.id.isin(chosen)].tolist()


def sample(params: Params) -> Sequence[Record]:
    """Return `params.robustness.images` images of FakeClue's test split, stratified by label and category."""
    records = Records(benchmarks.folder("fakeclue"))
    frame = records.frame(["id", "label", "category"])
    chosen = stratified(frame, params.robustness.images, params.seed)
    return records.take(np.flatnonzero(frame["id"].isin(chosen)))


def settings(params: Params) -> list[tuple[str, float]]:
    """Return all (kind, strength) of the profile, in its order."""
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
        spec.name: published(spec, params) for spec in weights
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
    changes = settings(params)
    images = list(records)
    images += [perturbed(record, *change, params.seed) for change in changes for record in records]
    frame = columns_of(images, ["id", "label", "category", "item"]).astype({"label": int})
    subsets = ["none", *(f"{kind}={strength:g}" for kind, strength in changes)]
    frame = frame.assign(subset=np.repeat(subsets, len(records)))
    frame = pd.concat(
        [frame.assign(method=name, **answers(images, cache)) for name, answers in methods.items()],
        ignore_index=True,
    )
    # Detection only: without references and ground truth no explanation is scored.
    scored = [
        score(part, {}, params, "fakeclue", families=("all",)).assign(subset=subset)
        for (_, subset), part in frame.assign(question=None, reference="").groupby(
            ["method", "subset"], sort=False
        )
    ]
    return frame[SCHEMA.names], pd.concat(scored, ignore_index=True)[COLUMNS]


def run(params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `artifacts/robustness/predictions.parquet` and `scores.csv`, and return both.

    Interrupted, it goes on where it stopped: see `fakevlm.cache`.

    Raises:
        UserError: records or a model are not there yet; the message names the stage that makes them.
    """
    with ray_cluster.connected(params.cluster), work() as cache:
        predictions, scores = study(params, sample(params), tested(params), cache)
    benchmarks.write(paths.artifacts("robustness"), SCHEMA, predictions, scores)
    return predictions, scores

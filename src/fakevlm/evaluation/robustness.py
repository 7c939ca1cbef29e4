"""How detectors bear what happens to images on their way: recompression, resizing, blur, noise, cropping.

The paper announces this study for its supplement, which has not been published; kinds and strengths are ours
(params.yaml). All methods see the same perturbed images of one sample of FakeClue's test split, and the same
bootstrap draws: differences between methods and between strengths are none between samples.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from fakevlm import paths
from fakevlm.cache import Cache, code_version, kept
from fakevlm.config.params import Params
from fakevlm.data.records import Record, decode, encode
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks
from fakevlm.evaluation.benchmarks import EXPERTS, FAKEVLM, method, schema, score
from fakevlm.evaluation.detectors import Answers, published
from fakevlm.inference import ray_cluster
from fakevlm.progress import track

SCHEMA = schema("method", "subset", "id", "label", "category?", "text?", "p_fake", "verdict", "forced")
KINDS = ("jpeg", "resize", "blur", "noise", "crop")
_DECODING = threading.Lock()


def perturb(image: Image.Image, kind: str, strength: float, seed: int) -> Image.Image:
    """Return a copy of an RGB image, of the same size, perturbed in a way of `KINDS`.

    `strength` is of `jpeg` the quality (1–100), of `resize` (down and up again) and `crop` (the centre,
    enlarged again) the share of each side, of Gaussian `blur` sigma in pixels, of Gaussian `noise` (the only
    kind that draws) sigma in grey levels of 255.
    """
    if kind == "jpeg":
        return decode(encode(image, "JPEG", quality=int(strength)))
    if kind == "blur":  # by cv2, because PIL's Gaussian is an approximation by boxes
        pixels = np.asarray(image)
        return Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), strength) if strength > 0 else pixels)
    if kind == "noise":
        pixels = np.asarray(image)
        grain = np.random.default_rng(seed).normal(0, strength, pixels.shape)
        return Image.fromarray(np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8))
    width, height = (max(1, round(side * strength)) for side in image.size)
    if kind == "crop":
        left, top = (image.width - width) // 2, (image.height - height) // 2
        small = image.crop((left, top, left + width, top + height))
    else:
        small = image.resize((width, height), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


@dataclass(slots=True)
class PerturbedRecord(Record):
    """A record whose image is decoded and perturbed once, for all methods; `sha256` names the change."""

    change: tuple[str, float, int] = ("none", 1, 0)  # kind, strength and seed, as `perturb` takes them
    original: "PerturbedRecord | None" = None  # what is perturbed; None: this is it
    opened: Image.Image | None = None

    def pil(self) -> Image.Image:
        if self.original and self.opened is None:
            self.opened = perturb(self.original.pil(), *self.change)
        with _DECODING:
            self.opened = self.opened or decode(self.image)
        return self.opened

    def encoded(self) -> bytes:
        """The perturbed image without further loss, as PNG."""
        return encode(self.pil(), "PNG", compress_level=1) if self.original else self.image


def perturbed(record: Record, changes: Sequence[tuple[str, float]], seed: int) -> list[PerturbedRecord]:
    """Return the record as it is and with its image perturbed in n ways. Noise depends on the record's id."""
    values = {field.name: getattr(record, field.name) for field in fields(Record)}
    original = PerturbedRecord(**values)
    noise = int.from_bytes(hashlib.sha256(f"{seed} {record.id}".encode()).digest()[:8], "big")
    code, records = code_version(__name__)[:16], [original]
    for kind, strength in changes:
        drawn = noise if kind == "noise" else ""
        values["sha256"] = f"{record.sha256} {kind}={strength!r} {drawn} {code}"
        records.append(PerturbedRecord(**values, change=(kind, strength, noise), original=original))
    return records


def stratified(frame: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Return ids of about `count` rows, in order, stratified by label and category, at least one of each."""
    if len(frame) <= count:
        return frame.id.tolist()
    shuffled = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    groups = shuffled.groupby(["label", "category"], dropna=False)
    chosen = pd.concat([group.id.head(max(1, round(count * len(group) / len(frame)))) for _, group in groups])
    return frame.id[frame.id.isin(chosen)].tolist()


def sample(params: Params) -> Sequence[Record]:
    """Return `params.robustness.images` images of FakeClue's test split, stratified by label and category."""
    records = Records(benchmarks.folder("fakeclue"))
    frame = columns_of(records, ["id", "label", "category"])
    chosen = stratified(frame, params.robustness.images, params.seed)
    return records.take(np.flatnonzero(frame["id"].isin(chosen)))


def settings(params: Params) -> list[tuple[str, float]]:
    """Return all (kind, strength) of the profile, in its order."""
    section = params.robustness.model_dump()
    return [(kind, strength) for kind in KINDS for strength in section[kind]]


def tested(params: Params) -> dict[str, Answers]:
    """Return who answers: FakeVLM, the experts, and the published detectors with weights (not with scores).

    Raises a UserError where a model is not there yet, which names the stage that makes it.
    """
    # The verdict stands in the first sentence; the explanation after it is not scored here.
    longest, asked = params.robustness.max_new_tokens, params.evaluate
    methods = {n: method(n, params, longest) for n in asked.methods if n == FAKEVLM or n in EXPERTS}
    return methods | {spec.name: published(spec, params) for spec in asked.experts if spec.scores is None}


def study(
    params: Params, records: Sequence[Record], methods: Mapping[str, Answers], cache: Cache | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask every method about all perturbations of some records, then of the next.

    So an image is decoded, perturbed and resized once. On a cluster each method is asked about all records at
    once, so that workers load its model once.

    Returns predictions (columns of `SCHEMA`) and scores (of `benchmarks.score`, with `none`, `jpeg=70`, … as
    subset), in the order of the methods and then of the settings. Raises a UserError without a method.
    """
    if not methods:
        what = f"{params.profile}.evaluate.methods names neither FakeVLM nor an expert"
        raise UserError(what, f"list one of: {FAKEVLM}, {', '.join(EXPERTS)}")
    records, changes, frames = list(records), settings(params), []
    subsets = ["none", *(f"{kind}={strength:g}" for kind, strength in changes)]
    size = len(records) if params.cluster else 2 * params.evaluate.batch_size  # whole batches
    for start in track(range(0, len(records), size), "robustness", unit="part"):
        part = [perturbed(record, changes, params.seed) for record in records[start : start + size]]
        images = [each[n] for n in range(len(subsets)) for each in part]
        rows = columns_of(images, ["id", "label", "category", "group"]).astype({"label": int})
        rows["subset"] = np.repeat(subsets, len(part))
        frames += [rows.assign(method=name, **answers(images, cache)) for name, answers in methods.items()]
    order = {name: n for n, name in enumerate([*methods, *subsets])}
    by = {"by": ["method", "subset"], "key": lambda names: names.map(order), "kind": "stable"}
    frame = pd.concat(frames).sort_values(**by, ignore_index=True)
    # Detection only: without references and ground truth no explanation is scored.
    parts = frame.assign(question=None, reference="").groupby(["method", "subset"], sort=False)
    scores = {key: score(part, {}, params, "fakeclue", families=("all",)) for key, part in parts}
    scored = [part.assign(subset=subset) for (_, subset), part in scores.items()]
    return frame[SCHEMA.names], pd.concat(scored, ignore_index=True)


def run(params: Params) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write `artifacts/robustness/predictions.parquet` and `scores.csv`, and return both.

    Interrupted, it goes on where it stopped: see `fakevlm.cache`. Raises a UserError where records or a model
    are not there yet, which names the stage that makes them.
    """
    with ray_cluster.connected(params.cluster), kept("predictions") as cache:
        predictions, scores = study(params, sample(params), tested(params), cache)
    benchmarks.write(paths.artifacts("robustness"), SCHEMA, predictions, scores)
    return predictions, scores

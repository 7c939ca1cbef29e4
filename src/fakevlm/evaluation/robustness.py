"""How detectors bear what happens to images on their way: recompression, resizing, blur, noise, cropping.

The paper announces this study for its supplement, which has not been published; kinds and strengths are ours (params.yaml). All
methods see the same perturbed images of the same sample of FakeClue's test split, and the same bootstrap draws, so that
differences between methods and between strengths are differences between them and not between samples.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.records import Record, write_records
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks, detectors
from fakevlm.evaluation.methods import EXPERTS, FAKEVLM, detect, detector, speaker
from fakevlm.evaluation.scores import COLUMNS, score
from fakevlm.inference import cluster
from fakevlm.inference.batchwise import Viewer, code
from fakevlm.prefetch import ahead
from fakevlm.progress import track

KINDS = ("jpeg", "resize", "blur", "noise", "crop")
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


def perturb(image: Image.Image, kind: str, strength: float, seed: int) -> Image.Image:
    """A perturbed copy of an RGB image, of the same size.

    Args:
        image: RGB.
        kind: `jpeg` (strength: quality 1–100), `resize` (down to this share of each side and up again), `blur` (Gaussian, sigma in
            pixels), `noise` (Gaussian, sigma in grey levels of 255), `crop` (the centre, this share of each side, enlarged again).
        strength: as above.
        seed: of the noise; the other kinds draw nothing.

    Raises:
        UserError: no such kind, or a strength out of range.
    """
    limits = {"jpeg": (1, 100), "resize": (0.01, 1), "blur": (0, 100), "noise": (0, 255), "crop": (0.05, 1)}
    if kind not in limits:
        raise UserError(f"robustness: no perturbation {kind!r}", f"choose among: {', '.join(KINDS)}")
    low, high = limits[kind]
    if not low <= strength <= high:
        raise UserError(
            f"robustness.{kind}: {strength} is out of range", f"give a value from {low} to {high}"
        )
    if kind == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(strength))
        return Image.open(buffer).convert("RGB")
    if kind in ("blur", "noise"):
        pixels = np.asarray(image)
        if kind == "blur":
            # cv2 and not PIL, whose Gaussian is an approximation by boxes
            pixels = cv2.GaussianBlur(pixels, (0, 0), strength) if strength > 0 else pixels
        else:
            grain = np.random.default_rng(seed).normal(0, strength, pixels.shape)
            pixels = np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8)
        return Image.fromarray(pixels)
    width, height = (max(1, round(side * strength)) for side in image.size)
    if kind == "crop":
        left, top = (image.width - width) // 2, (image.height - height) // 2
        small = image.crop((left, top, left + width, top + height))
    else:
        small = image.resize((width, height), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def perturbed(record: Record, kind: str, strength: float, seed: int) -> Record:
    """The record with its image perturbed, stored without further loss (PNG). The noise depends on the record's id."""
    own = int.from_bytes(hashlib.sha256(f"{seed} {record.id}".encode()).digest()[:8], "big")
    buffer = io.BytesIO()
    perturb(record.pil(), kind, strength, own).save(buffer, "PNG", compress_level=1)
    return replace(record, image=buffer.getvalue(), sha256="")


def stratified(frame: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Ids of about `count` rows with the shares of label and category that the whole has, at least one of each, in order.

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
    """The images of the study: `params.robustness.images` of FakeClue's test split, stratified by label and category."""
    records = Records(benchmarks.folder("fakeclue"))
    known = records.frame(["id", "label", "category"])
    chosen = stratified(known, params.robustness.images, params.seed)
    return records.take(np.flatnonzero(known["id"].isin(chosen)))


def settings(params: Params) -> list[tuple[str, float]]:
    """All (kind, strength) of the profile, in its order."""
    section = params.robustness.model_dump()
    return [(kind, strength) for kind in KINDS for strength in section[kind]]


@dataclass(frozen=True)
class Judge:
    """A method under test.

    Attributes:
        method: as tables print it.
        answer: (records, journal) → id, text, p_fake, verdict, forced, in the records' order; loads the model when first called,
            and keeps what is done in the journal, a folder.
    """

    method: str
    answer: Callable[[Sequence[Record], Path], pd.DataFrame]


def judges(params: Params) -> list[Judge]:
    """FakeVLM and the experts, as far as `params.evaluate` lists them; of those with their authors' weights all, whatever
    benchmarks they are shown for (scores from a file say nothing of perturbed images).

    Raises:
        UserError: a model is not there yet; the message names the stage that makes it.
    """
    made = []
    for method in params.evaluate.methods:
        if method == FAKEVLM:
            made.append(_speaker(params))
        elif method in EXPERTS:
            made.append(_detector(method, detector(method, params)))
    for spec in params.evaluate.experts:
        if spec.scores is None:
            detectors.check(spec)
            made.append(_detector(spec.name, detectors.viewer(spec, params)))
    return made


def _speaker(params: Params) -> Judge:
    from fakevlm.inference.engines import journal_of

    name, ask = speaker(FAKEVLM, params)

    def answer(records: Sequence[Record], journal: Path) -> pd.DataFrame:
        # The verdict stands in the first sentence; the explanation after it is not scored here.
        return ask(records, params.robustness.max_new_tokens, journal_of(journal, FAKEVLM, name))

    return Judge(FAKEVLM, answer)


def _detector(method: str, viewer: Viewer) -> Judge:
    return Judge(method, partial(detect, viewer, desc=method))


def _seen(params: Params, records: Sequence[Record], journal: Path) -> Records:
    """What the judges see: all records as they are, then all with each perturbation. On disk, for lossless copies are large; once,
    for a run that goes on finds them there.
    """
    todo = settings(params)
    told = [todo, params.seed, code(), columns_of(records, ["id", "sha256"]).to_numpy().tolist()]
    folder = journal / f"seen-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]}"
    if not folder.exists():
        for old in journal.glob("seen-*"):  # of other settings
            shutil.rmtree(old)
        shutil.rmtree(making := journal / "making", ignore_errors=True)
        copies = ((record, *each) for each in todo for record in records)
        changed = ahead(lambda copy: perturbed(*copy, params.seed), copies)
        total = (1 + len(todo)) * len(records)
        write_records(track(chain(records, changed), "perturbed images", total), making)
        os.replace(making, folder)  # whole or not at all, whenever the process dies
    return Records(folder)


def study(
    params: Params, records: Sequence[Record], judged: Sequence[Judge], journal: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every judge on every perturbation of the records, each judge on all of them at once: a cluster's workers load it once.

    Args:
        params: of these, `seed`, `evaluate` and `robustness`.
        records: n test images.
        judged: the methods.
        journal: folder of the perturbed images and of what is done already.

    Returns:
        predictions (columns of `SCHEMA`) and scores (those of `evaluation.scores`, with `jpeg=70`, …, `none` as subset), sorted as
        the judges and then the settings are.

    Raises:
        UserError: nobody is to be judged.
    """
    if not judged:
        raise UserError(
            f"{params.profile}.evaluate.methods names neither FakeVLM nor an expert",
            f"list one of: {FAKEVLM}, {', '.join(EXPERTS)}",
        )
    subsets = [NONE, *(f"{kind}={strength:g}" for kind, strength in settings(params))]
    known = columns_of(records, ["label", "category", "item"]).astype({"label": int})
    items = known.pop("item").tolist()
    seen, frames = _seen(params, records, journal), []
    for judge in judged:
        answers = judge.answer(seen, journal)
        for number, subset in enumerate(subsets):
            own = answers.iloc[number * len(records) : (number + 1) * len(records)].reset_index(drop=True)
            frames.append(own.assign(**known, method=judge.method, subset=subset)[SCHEMA.names])
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

    Interrupted, it goes on where it stopped (journal in `runs/robustness/<profile>/`, until `paths.forget`).

    Raises:
        UserError: records or a model are not there yet; the message names the stage that makes them.
    """
    journal = paths.runs("robustness", params.profile)
    with cluster.connected(params.cluster):
        predicted, scored = study(params, sample(params), judges(params), journal)
    out = paths.artifacts("robustness")
    out.mkdir(parents=True, exist_ok=True)
    stored = pa.Table.from_pandas(predicted, SCHEMA, preserve_index=False).replace_schema_metadata()
    pq.write_table(stored, out / "predictions.parquet")
    scored.to_csv(out / "scores.csv", index=False, float_format="%.6f", lineterminator="\n")
    return predicted, scored

"""Detectors of others as rows of Tables 3 and 5: with the weights that their authors publish, or with scores from a file.

| kind | method | checkpoint | image as the authors' code has it |
|---|---|---|---|
| cnnspot | CNNSpot (Wang et al., CVPR 2020) | `blur_jpg_prob0.5.pth` | whole, unresized, ImageNet's mean and deviation |
| univfd | UnivFD (Ojha et al., CVPR 2023) | `fc_weights.pth`, on CLIP ViT-L/14 | centre of 224 pixels, unresized, CLIP's |
| gramnet | Gram-Net (Liu et al., CVPR 2020) | state dict of the authors' module, or AIGCDetectBenchmark's `Gram.pth` | see `gramnet` |
| fusing | Fusing (Ju et al., ICIP 2022) | `model_epoch_best.pth` | whole and six windows of it, ImageNet's |
| lnp | LNP (Liu et al., ECCV 2022) | `model_epoch_best.pth`, on the denoiser `sidd_rgb.pth` | see `lnp` |

All have the interface of the experts that are trained here: `predict(images)` gives P(fake). What is printed in the paper and not
listed (AntifakePrompt, SIDA; FWA, Face X-ray, SRM, CDFA of DeepfakeBench) enters by its scores (`given`).
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from fakevlm import paths
from fakevlm.config.params import Params, PublishedExpert
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.evaluation import methods
from fakevlm.evaluation.detectors.given import read_scores
from fakevlm.inference.batchwise import Viewer

if TYPE_CHECKING:
    from fakevlm.evaluation.detectors.base import Detector


def load_detector(spec: PublishedExpert) -> "Detector":
    """The detector of an entry with weights.

    Raises:
        UserError: a file is missing, is no plain checkpoint, or holds other tensors than this kind has.
    """
    if spec.kind == "cnnspot":
        from fakevlm.evaluation.detectors.cnnspot import PublishedCNNSpot

        return PublishedCNNSpot(spec.weights)
    if spec.kind == "univfd":
        from fakevlm.evaluation.detectors.univfd import PublishedUnivFD

        return PublishedUnivFD(spec.weights, spec.features)
    if spec.kind == "gramnet":
        from fakevlm.evaluation.detectors.gramnet import GramNet

        return GramNet(spec.weights)
    if spec.kind == "fusing":
        from fakevlm.evaluation.detectors.fusing import Fusing

        return Fusing(spec.weights)
    from fakevlm.evaluation.detectors.lnp import LNP

    return LNP(spec.weights, spec.features)


def check(spec: PublishedExpert) -> None:
    """Whether an entry's files are there: better known now than after hours of other methods.

    Raises:
        UserError: one is not.
    """
    files = {"weights": spec.weights, "scores": spec.scores}
    if spec.kind == "lnp":
        files["features"] = spec.features
    for key, name in files.items():
        if name is not None and not Path(paths.resolve(name)).is_file():
            raise UserError(
                f"expert {spec.name}: no file {name}", f"get it, or correct evaluate.experts[].{key}"
            )


def viewer(spec: PublishedExpert, params: Params) -> Viewer:
    """The detector of an entry with weights, here or on the profile's cluster."""
    # Workers may stand elsewhere: they are told whole paths.
    files = {key: paths.resolve(getattr(spec, key)) for key in ("weights", "features") if getattr(spec, key)}
    placed = spec.model_copy(update={key: str(file) for key, file in files.items() if file.exists()})
    hashes = {key: _hash(file) if file.is_file() else str(file) for key, file in files.items()}
    return methods.viewer(partial(load_detector, placed), [spec.kind, hashes], params)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def answers(
    spec: PublishedExpert, params: Params, records: Sequence[Record], journal: Path | None
) -> pd.DataFrame:
    """A detector's answers about n records, in their order: id, text (null), p_fake, verdict, forced (False).

    Args:
        spec: the entry.
        params: the profile; of it, cluster and evaluate.batch_size.
        records: n of them.
        journal: folder for work in progress.

    Raises:
        UserError: a file does not fit; with scores: some record has none.
    """
    if spec.scores is not None:
        return read_scores(spec, records)
    return methods.detect(viewer(spec, params), records, journal, spec.name)

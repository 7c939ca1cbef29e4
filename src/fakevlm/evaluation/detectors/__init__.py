"""Published detectors as rows of Tables 3 and 5: with their authors' weights, or with scores from a file.

By kind, the method, its checkpoint, and the image as the authors' code takes it:

* cnnspot: CNNSpot (Wang et al., CVPR 2020); `blur_jpg_prob0.5.pth`; whole, unresized, ImageNet's statistics.
* univfd: UnivFD (Ojha et al., CVPR 2023); `fc_weights.pth`, on CLIP ViT-L/14; centre of 224 pixels,
  unresized, CLIP's statistics.
* gramnet: Gram-Net (Liu et al., CVPR 2020); state dict of the authors' module, or AIGCDetectBenchmark's
  `Gram.pth`; see `gramnet`.
* fusing: Fusing (Ju et al., ICIP 2022); `model_epoch_best.pth`; whole and six windows, ImageNet's statistics.
* lnp: LNP (Liu et al., ECCV 2022); `model_epoch_best.pth`, on the denoiser `sidd_rgb.pth`; see `lnp`.

All have the experts' interface: `predict(images)` returns P(fake). The paper's other methods (AntifakePrompt,
SIDA; FWA, Face X-ray, SRM, CDFA of DeepfakeBench) enter by their scores (`given`).
"""

from functools import partial
from typing import TYPE_CHECKING

from fakevlm import paths, plugins
from fakevlm.cache import file_digest, model_version
from fakevlm.config.params import Params, PublishedExpert
from fakevlm.errors import UserError
from fakevlm.evaluation import methods
from fakevlm.evaluation.detectors.given import read_scores

if TYPE_CHECKING:
    from fakevlm.evaluation.detectors.base import Detector


DETECTORS = {
    "cnnspot": "fakevlm.evaluation.detectors.cnnspot:PublishedCNNSpot",
    "univfd": "fakevlm.evaluation.detectors.univfd:PublishedUnivFD",
    "gramnet": "fakevlm.evaluation.detectors.gramnet:GramNet",
    "fusing": "fakevlm.evaluation.detectors.fusing:Fusing",
    "lnp": "fakevlm.evaluation.detectors.lnp:LNP",
}


def load_detector(spec: PublishedExpert) -> "Detector":
    """Return the detector of an entry with weights, or with a class of its own.

    Raises:
        UserError: a file is missing, is no plain checkpoint, or holds other tensors than this kind has.
    """
    files = [name for name in (spec.weights, spec.features) if name is not None]
    return plugins.load(spec.object or spec.kind, DETECTORS, "evaluate.experts[].object")(*files)


def detector(spec: PublishedExpert, params: Params) -> methods.Answers:
    """Return who answers for an entry: its detector, here or on the profile's cluster, or its file of scores.

    Raises:
        UserError: a file is missing.
    """
    files = {"weights": spec.weights, "scores": spec.scores, "features": spec.features}
    places = {key: paths.resolve(name) for key, name in files.items() if name is not None}
    for key, place in places.items():
        if not place.is_file() and not (key == "features" and spec.kind == "univfd"):
            raise UserError(
                f"expert {spec.name}: no file {files[key]}", f"get it, or correct evaluate.experts[].{key}"
            )
    if spec.scores is not None:
        return lambda records, cache: read_scores(spec, records)
    # Workers may run elsewhere: they get absolute paths.
    placed = spec.model_copy(update={key: str(place) for key, place in places.items() if place.exists()})
    versions = [
        file_digest(place) if place.is_file() else model_version(files[key]) for key, place in places.items()
    ]
    return methods.detector(
        spec.name,
        partial(load_detector, placed),
        [spec.kind or spec.object, spec.revision, *versions],
        params,
    )

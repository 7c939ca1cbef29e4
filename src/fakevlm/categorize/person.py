"""Does an image show people? What an ImageNet-1k classifier cannot tell (it knows a ballplayer, a groom and a scuba diver).

The paper does not say when an image is "human". Here it is one, whatever the classifier says, if (`categorize.person`)

* `kind: detector`: the boxes of persons that an object detector finds with `score` or more cover `min_area` or more of the image
  together. So a crowd counts and a passer-by does not; somebody who holds up a fish does, though ImageNet calls the picture a tench.
* `kind: head`: the probabilities of all classes of people in a second classifier's head (`persons.txt`) sum to `score` or more. It
  takes a head that knows people: ImageNet-22k's.

Where neither says so, the classifier's category stands, `human` included. If `categorize.model` has a 22k head itself, its own sum over
those classes competes with the other categories' already, and `person: null` is enough.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fakevlm import paths
from fakevlm.categorize import eva
from fakevlm.categorize.synsets import FOUR
from fakevlm.config.params import Person
from fakevlm.errors import UserError

# RGB images -> for each how sure it is that this is an image of people (the best box's score, the summed probability); 0: it is none.
Judge = Callable[[Sequence[Image.Image]], np.ndarray]
HUMAN = FOUR.index("human")
GRID = 100  # areas are counted on so many by so many cells
FEWEST = 100  # classes of people that make a head one that knows people; ImageNet-1k has 3, its 22k 2,836


def covered(boxes: np.ndarray, width: int, height: int) -> float:
    """The share of an image that boxes cover together, to a hundredth of a side.

    Args:
        boxes: (n, 4), x0, y0, x1, y1 in pixels; what lies outside the image does not count.
    """
    mask = np.zeros((GRID, GRID), bool)
    cells = np.asarray(boxes, np.float64).reshape(-1, 4) * (GRID / np.array([width, height, width, height]))
    for x0, y0, x1, y1 in np.clip(np.rint(cells), 0, GRID).astype(int):
        mask[y0:y1, x0:x1] = True
    return float(mask.mean())


def _label(model: Any, name: str) -> int:
    labels = {str(label).lower(): int(number) for number, label in model.config.id2label.items()}
    if "person" not in labels:
        raise UserError(
            f"categorize.person.model: {name!r} has no label 'person' but {', '.join(sorted(labels)[:10])} …",
            "name a detector of COCO's classes, such as facebook/detr-resnet-50 or hustvl/yolos-tiny",
        )
    return labels["person"]


def detector(settings: Person) -> Judge:
    """An object detector of transformers (DETR, YOLOS, RT-DETR …), by folder or by name on the Hugging Face hub.

    Raises:
        UserError: it does not load, or knows no persons.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder = paths.resolve(settings.model)
    where = str(folder) if folder.is_dir() else settings.model
    try:
        processor = AutoImageProcessor.from_pretrained(where)
        model = AutoModelForObjectDetection.from_pretrained(where, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"categorize.person.model: {settings.model!r} cannot be loaded ({type(error).__name__}: {error})",
            "name a folder or a model on the hub with an object detector in safetensors, such as facebook/detr-resnet-50",
        ) from error
    person, device = _label(model, settings.model), eva.device()
    model = model.eval().to(device)

    @torch.inference_mode()
    def judge(images: Sequence[Image.Image]) -> np.ndarray:
        inputs = processor(images=list(images), return_tensors="pt").to(device)
        sizes = [(image.height, image.width) for image in images]
        found = processor.post_process_object_detection(
            model(**inputs), threshold=settings.score, target_sizes=sizes
        )
        sure = np.zeros(len(images), np.float32)
        for n, (image, one) in enumerate(zip(images, found, strict=True)):
            people = one["labels"] == person
            if people.any() and covered(one["boxes"][people].cpu().numpy(), *image.size) >= settings.min_area:
                sure[n] = one["scores"][people].max().item()
        return sure

    return judge


def head(settings: Person) -> Judge:
    """A timm classifier whose head has thousands of people: `eva02_base_patch14_448.mim_in22k_ft_in22k`.

    Raises:
        UserError: it does not load, or its head knows hardly any people.
    """
    classifier = eva.load(settings.model)
    people = int(classifier.columns[:, HUMAN].sum())
    if people < FEWEST:
        raise UserError(
            f"categorize.person.model: {settings.model!r} has only {people} classes of people",
            "name a model with ImageNet-22k's head, such as eva02_base_patch14_448.mim_in22k_ft_in22k",
        )

    def judge(images: Sequence[Image.Image]) -> np.ndarray:
        human = classifier.probabilities(images)[:, HUMAN]
        return np.where(human >= settings.score, human, 0)

    return judge


def make_judge(settings: Person | None) -> Judge | None:
    """What `categorize.person` asks for; None where the classifier alone decides.

    Raises:
        UserError: its model does not load or knows no people.
    """
    if settings is None:
        return None
    return detector(settings) if settings.kind == "detector" else head(settings)

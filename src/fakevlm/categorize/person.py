"""Decide whether an image shows people: an ImageNet-1k classifier has only three classes of people.

The paper does not say when an image is "human". With `categorize.person`, a detector of persons or a second
classifier with ImageNet-22k's head decides, whatever the first classifier says (docs/corpora.md).
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from fakevlm.categorize import eva
from fakevlm.categorize.synsets import FOUR
from fakevlm.config.params import Person
from fakevlm.errors import UserError

# RGB images → (n,) scores: the best box's score or the summed probability; 0 if an image is not of people.
Judge = Callable[[Sequence[Image.Image]], np.ndarray]
HUMAN = FOUR.index("human")
GRID = 100  # cells a side on which areas are counted
FEWEST = 100  # classes of people that a head needs; ImageNet-1k has 3, 22k has 2,836


def covered(boxes: np.ndarray, width: int, height: int) -> float:
    """Return the share of an image that boxes (n, 4) cover together: x0, y0, x1, y1 in pixels."""
    mask = np.zeros((GRID, GRID), bool)
    cells = boxes.astype(np.float64) * (GRID / np.array([width, height, width, height]))
    for x0, y0, x1, y1 in np.clip(np.rint(cells), 0, GRID).astype(int):
        mask[y0:y1, x0:x1] = True
    return float(mask.mean())


def detector(settings: Person) -> Judge:
    """Return a judge by an object detector of transformers (DETR, YOLOS …): a folder or a name on the hub.

    Raises `UserError` if it does not load, or has no label for persons.
    """
    import torch
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    from fakevlm.model.weights import cannot_load, load_weights, locate

    try:
        processor = AutoImageProcessor.from_pretrained(locate(settings.model), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise cannot_load("image processor (categorize.person.model)", settings.model, error) from error
    model = load_weights(AutoModelForObjectDetection, settings.model, whole=False)
    labels = {str(label).lower(): int(number) for number, label in model.config.id2label.items()}
    if "person" not in labels:
        what = f"{settings.model!r} has no label 'person' but {', '.join(sorted(labels)[:10])} …"
        cure = "name a detector of COCO's classes, such as facebook/detr-resnet-50 or hustvl/yolos-tiny"
        raise UserError(f"categorize.person.model: {what}", cure)
    model = model.to(eva.device())

    @torch.inference_mode()
    def judge(images: Sequence[Image.Image]) -> np.ndarray:
        inputs = processor(images=list(images), return_tensors="pt").to(eva.device())
        sizes = [(image.height, image.width) for image in images]
        detections = processor.post_process_object_detection(
            model(**inputs), threshold=settings.score, target_sizes=sizes
        )
        scores = np.zeros(len(images), np.float32)
        for n, (image, boxes) in enumerate(zip(images, detections, strict=True)):
            people = boxes["labels"] == labels["person"]
            area = covered(boxes["boxes"][people].cpu().numpy(), *image.size)
            if people.any() and area >= settings.min_area:
                scores[n] = boxes["scores"][people].max().item()
        return scores

    return judge


def head(settings: Person) -> Judge:
    """Return a judge by timm's ImageNet-22k classifier. Raises `UserError` if it does not load or is none."""
    classifier = eva.load(settings.model)
    people = int(classifier.columns[:, HUMAN].sum())
    if people < FEWEST:
        what = f"categorize.person.model: {settings.model!r} has only {people} classes of people"
        cure = "name a model with ImageNet-22k's head, such as eva02_base_patch14_448.mim_in22k_ft_in22k"
        raise UserError(what, cure)

    def judge(images: Sequence[Image.Image]) -> np.ndarray:
        human = classifier.probabilities(images)[:, HUMAN]
        return np.where(human >= settings.score, human, 0)

    return judge


JUDGES: dict[str, Callable[[Person], Judge]] = {"detector": detector, "head": head}

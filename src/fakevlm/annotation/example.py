"""Pick an image that shows how annotation works (paper Fig. 2): question, captions, answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fakevlm.annotation.dataset import FakeClue, captions_of
from fakevlm.annotation.prompts import LABELS, Prompt, label_prompt
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import FAKE, Record, read_records
from fakevlm.errors import UserError


@dataclass(frozen=True)
class Example:
    """One annotated image.

    Attributes:
        record: the image.
        prompt: the question about it.
        captions: by annotator.
        answer: the aggregate.
        boxes: true regions of artifacts (fractions x0, y0, x1, y1), if known.
    """

    record: Record
    prompt: Prompt
    captions: dict[str, str]
    answer: str
    boxes: list[tuple[float, float, float, float]]

    @property
    def title(self) -> str:
        """Its id, category and label."""
        return f"{self.record.id} ({self.prompt.category}, {LABELS[self.record.label]})"


def pick(
    fakeclue: FakeClue,
    folder: Path,
    ground_truth: Mapping[str, GroundTruth] | None = None,
    label: int = FAKE,
) -> Example | None:
    """Return a training image that all annotators captioned and whose answer names two families or more.

    Among such images the least hash decides, so that the example is typical, good or bad.

    Args:
        fakeclue: the results of the stage.
        folder: the stage's output.
        ground_truth: by path.
        label: 0 for a fake, 1 for a real image.

    Returns:
        None if nobody was asked (profile `released`).

    Raises:
        UserError: no such image was captioned by all annotators.
    """
    if fakeclue.outcomes.empty:
        return None
    images = fakeclue.images[(fakeclue.images["split"] == "train") & (fakeclue.images["label"] == label)]
    images = images[images["annotators"] == len(fakeclue.outcomes)]
    if images.empty:
        raise UserError(
            f"no {LABELS[label]} image of the training split was captioned by every annotator",
            "look at candidates.parquet; run the stage again: requests that ended in errors are repeated",
        )
    several = images["families"] >= 2
    chosen = (images[several] if several.any() else images).sort_values("sha256").iloc[0]
    record = next(read_records(folder / "fakeclue" / "train", {"id": chosen["id"]}))
    rows = captions_of(folder / "candidates.parquet", [record.id])
    truth = (ground_truth or {}).get(record.path)
    return Example(
        record,
        label_prompt(record.category, label),
        rows.set_index("annotator")["text"].to_dict(),
        record.references[0],
        [artifact.region for artifact in truth.artifacts] if truth else [],
    )

"""Picks an image to show how annotation works (paper Fig. 2): what was asked, what each annotator said, what came of it."""

from dataclasses import dataclass
from pathlib import Path

from fakevlm.annotation.dataset import FakeClue, candidates_about
from fakevlm.annotation.prompts import LABELS, Prompt, label_prompt
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import FAKE, Record, read_records
from fakevlm.errors import UserError


@dataclass(frozen=True)
class Example:
    """One annotated image.

    Attributes:
        record: the image.
        prompt: what was asked about it.
        captions: by annotator, what it said.
        answer: the aggregate.
        boxes: true regions of artifacts (fractions x0, y0, x1, y1), where known.
    """

    record: Record
    prompt: Prompt
    captions: dict[str, str]
    answer: str
    boxes: list[tuple[float, float, float, float]]

    @property
    def title(self) -> str:
        return f"{self.record.id} ({self.prompt.category}, {LABELS[self.record.label]})"


def pick(
    made: FakeClue, annotated: Path, truths: dict[str, GroundTruth] | None = None, label: int = FAKE
) -> Example | None:
    """An image of the training split that all annotators captioned and whose answer names two families or more.

    None where nobody was asked (`annotate.aggregator: released`).

    Which one is left to chance (the least hash), so that it is typical, good or bad.

    Args:
        made: what the stage made.
        annotated: folder that the stage made.
        truths: what is known of the images.
        label: 0 a fake, 1 a real image.

    Raises:
        UserError: no such image was captioned by all annotators.
    """
    if made.outcomes.empty:
        return None
    images = made.images[(made.images["split"] == "train") & (made.images["label"] == label)]
    images = images[images["annotators"] == len(made.outcomes)]
    if images.empty:
        raise UserError(
            f"no {LABELS[label]} image of the training split was captioned by every annotator",
            "look at candidates.parquet; delete lines with errors from runs/annotate to ask again",
        )
    telling = images["families"] >= 2
    chosen = (images[telling] if telling.any() else images).sort_values("sha256").iloc[0]
    record = next(read_records(annotated / "fakeclue" / "train", {"id": chosen["id"]}))
    said = candidates_about(annotated / "candidates.parquet", [record.id])
    captions = said.set_index("annotator")["text"].to_dict()
    truth = (truths or {}).get(record.path)
    boxes = [artifact.region for artifact in truth.artifacts] if truth else []
    return Example(record, label_prompt(record.category, label), captions, record.references[0], boxes)

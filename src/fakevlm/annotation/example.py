"""Picks an image to show how annotation works (paper Fig. 2): what was asked, what each annotator said, what came of it."""

from dataclasses import dataclass
from pathlib import Path

from fakevlm.annotation.dataset import FakeClue
from fakevlm.annotation.prompts import LABELS, Prompt, label_prompt
from fakevlm.errors import UserError
from fakevlm.miniature.truth import Truth
from fakevlm.records import FAKE, Record, read_records


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
    made: FakeClue, records: Path, truths: dict[str, Truth] | None = None, label: int = FAKE
) -> Example | None:
    """An image of the training split that all annotators captioned and whose answer names two families or more.

    None where nobody was asked (`annotate.aggregator: released`).

    Which one is left to chance (the least hash), so that it is typical, good or bad.

    Args:
        made: what the stage made.
        records: folder of the collected shards.
        truths: what is known of the images.
        label: 0 a fake, 1 a real image.

    Raises:
        UserError: no such image was captioned by all annotators.
    """
    if made.candidates.empty:
        return None
    said = made.candidates[made.candidates["outcome"] == "ok"]
    everyone = said.groupby("id")["annotator"].nunique() == made.candidates["annotator"].nunique()
    images = made.images[(made.images["split"] == "train") & (made.images["label"] == label)]
    images = images[images["id"].isin(everyone.index[everyone])]
    if images.empty:
        raise UserError(
            f"no {LABELS[label]} image of the training split was captioned by every annotator",
            "look at candidates.parquet; delete lines with errors from runs/annotate to ask again",
        )
    telling = images["answer"].str.count(": ") >= 2
    chosen = (images[telling] if telling.any() else images).sort_values("sha256").iloc[0]
    record = next(record for record in read_records(records) if record.id == chosen["id"])
    captions = said[said["id"] == chosen["id"]].set_index("annotator")["text"].to_dict()
    truth = (truths or {}).get(record.path)
    boxes = [artifact.region for artifact in truth.artifacts] if truth else []
    return Example(record, label_prompt(chosen["category"], label), captions, chosen["answer"], boxes)

"""FakeClue as released, put where the stage `annotate` puts its own: texts and test split as they are, nobody is asked.

The release has no validation split. One is taken out of its training images by source item; the test images stay exactly the
released ones, so that numbers on them can be held against others'. The released split is by image: frames of one video lie in
train and in test, here too.
"""

import json
from pathlib import Path

import pandas as pd

from fakevlm import paths
from fakevlm.annotation.dataset import CandidateWriter, FakeClue, Writer, numbers
from fakevlm.annotation.quality import AGGREGATE, Agreement, ClueQuality
from fakevlm.annotation.splits import assign_splits
from fakevlm.config.params import Params
from fakevlm.data.records import read_frame, read_records
from fakevlm.errors import UserError


def plan(records: pd.DataFrame, val_fraction: float, seed: int) -> pd.DataFrame:
    """The released images with their splits, sorted by id.

    Args:
        records: columns id, label, category, item, split (train or test) and others.
        val_fraction: share of the training images that becomes the validation split, by item.
        seed: the run's seed.

    Raises:
        UserError: a record has no text, or no split of the release.
    """
    strange = records[~records["split"].isin(["train", "test"]) | (records["references"].str.len() != 1)]
    if len(strange):
        raise UserError(
            f"{strange['id'].iloc[0]} is no image of the released FakeClue",
            "rerun collect with collect.corpora.fakeclue alone: `dvc repro -f collect`",
        )
    train = records[records["split"] == "train"]
    # The test images are not looked at: an item with frames on both sides would drag its training frames over.
    drawn = assign_splits(train.assign(split=None), val_fraction, 0.0, seed)
    split = records["split"].where(records["split"] == "test", drawn.reindex(records.index))
    answer = records["references"].str[0]
    return records.drop(columns="references").assign(split=split, answer=answer).sort_values("id")


def build(params: Params, *, collected: Path | None = None, out: Path | None = None) -> FakeClue:
    """Runs the stage `annotate` on the release: what `fakeclue.build` writes, without candidates.

    Args:
        params: the profile, whose `annotate` is `Released`.
        collected, out: stage folders; default `artifacts/{collect,annotate}`.

    Raises:
        UserError: the collected records are not the release's.
    """
    collected = collected or paths.artifacts("collect")
    out = out or paths.artifacts("annotate")
    records = read_frame(collected / "records")
    families = records["references"].str[0].str.count(": ")
    chosen = plan(records.assign(families=families), params.annotate.val_fraction, params.seed)
    chosen = chosen.sort_index().drop(columns="answer").assign(annotators=0)
    with Writer(out) as writer:
        for record, split in zip(read_records(collected / "records"), chosen["split"], strict=True):
            writer.add(record, record.category, split, record.references[0])
    with CandidateWriter(out / "candidates.parquet"):
        pass  # nobody was asked
    # Tables for what nobody knows of the release, empty but with their columns.
    quality, agreed = ClueQuality([AGGREGATE]).table(), Agreement([]).table()
    quality.to_csv(out / "clue_quality.csv", index=False)
    agreed.to_csv(out / "agreement.csv", index=False)
    metrics = numbers(chosen)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return FakeClue(chosen, pd.DataFrame(), quality, agreed, metrics)

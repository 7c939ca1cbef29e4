"""FakeClue as released, in the form of the stage `annotate`: its texts and its test split.

The release has no validation split: one is drawn from its training images by group. The test images
stay the released ones, so frames of one video are in train and in test, here too.
"""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fakevlm import paths
from fakevlm.annotation.dataset import FakeClue, counts, write_captions, write_images
from fakevlm.annotation.quality import AGREEMENT_COLUMNS, QUALITY_COLUMNS
from fakevlm.annotation.splits import assign_splits
from fakevlm.config.params import Params
from fakevlm.data.records import read_frame, read_records
from fakevlm.errors import UserError


def plan(records: pd.DataFrame, val_fraction: float, seed: int) -> pd.DataFrame:
    """Return the released images with their splits, in their order.

    `records` have the columns id, label, category, group, split (train or test), references and others;
    `val_fraction` is the share of the training images that becomes the validation split, by group. Raises
    `UserError` if a record has no text, or no split of the release.
    """
    strange = records[~records["split"].isin(["train", "test"]) | (records["references"].str.len() != 1)]
    if len(strange):
        cure = "rerun collect with collect.corpora.fakeclue alone: `dvc repro -f collect`"
        raise UserError(f"{strange['id'].iloc[0]} is no image of the released FakeClue", cure)
    # Only training images are split, so that a group on both sides keeps its training frames in train.
    drawn = assign_splits(records[records["split"] == "train"].assign(split=None), val_fraction, 0.0, seed)
    split = records["split"].where(records["split"] == "test", drawn.reindex(records.index))
    families = records["references"].str[0].str.count(": ")
    return records.drop(columns="references").assign(split=split, families=families, annotators=0)


def build(params: Params, *, collected: Path | None = None, out: Path | None = None) -> FakeClue:
    """Run the stage `annotate` on the release: write what `annotate.build` writes, without captions.

    Stage folders default to `artifacts/{collect,annotate}`. Raises `UserError` as `plan` does.
    """
    records = (collected or paths.artifacts("collect")) / "records"
    out = out or paths.artifacts("annotate")
    chosen = plan(read_frame(records), params.annotate.val_fraction, params.seed)
    splits = zip(read_records(records), chosen["split"], strict=True)
    write_images(out, (replace(record, split=split) for record, split in splits))
    # Empty tables with their columns: nobody was asked, and there is no ground truth.
    write_captions(out, chosen["id"], {})
    quality, agreement = pd.DataFrame(columns=QUALITY_COLUMNS), pd.DataFrame(columns=AGREEMENT_COLUMNS)
    quality.to_csv(out / "clue_quality.csv", index=False)
    agreement.to_csv(out / "agreement.csv", index=False)
    metrics = counts(chosen)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return FakeClue(chosen, pd.DataFrame(), quality, agreement, metrics)

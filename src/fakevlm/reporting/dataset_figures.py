"""Figure 2: where FakeClue's images come from, what they show, and how well they are sorted and annotated."""

from typing import Any

import numpy as np
import pandas as pd

from fakevlm.reporting import style
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.texts import CATEGORY_NAMES, count, percent

MOST = 24  # makers of fakes in a figure
SOURCE_NAMES = {
    "genimage": "GenImage",
    "ff++": "FF++",
    "chameleon": "Chameleon",
    "satellite": "Satellite",
    "doc": "Documents",
}


def _by_label(counts: pd.Series) -> pd.DataFrame:
    """Return counts by name (rows, most first) and label (columns 0, 1)."""
    table = counts.unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    return table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]


def _stacked(axes: Any, counts: pd.Series, names: dict[str, str]) -> None:
    """Horizontal bars of fakes and real images by name, with count and share at their ends."""
    table = _by_label(counts)
    fake, real = table[0].to_numpy(), table[1].to_numpy()
    _bars(axes, [names.get(name, name) for name in table.index], fake, style.FAKE_COLOUR, label="fake")
    axes.barh(np.arange(len(table)), real, left=fake, color=style.REAL_COLOUR, height=0.66, label="real")
    for i, number in enumerate(fake + real):
        share = percent(number / max((fake + real).sum(), 1))
        style.direct_label(axes, number, i, f"{count(number)}  ({share})")
    axes.set_xlim(0, max((fake + real).max(), 1) * 1.32)
    axes.set_xlabel("images")


def _bars(axes: Any, names: list[str], values: Any, colour: str, **kwargs: Any) -> None:
    """Horizontal bars, one a name, from the top."""
    axes.barh(np.arange(len(names)), values, color=colour, height=0.66, **kwargs)
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


@drawing
def sources(frame: pd.DataFrame) -> Picture:
    """Images by source and label, and fakes by what made them (paper Fig. 2, data collection).

    Args:
        frame: source, label (1 real, 0 fake), generator, n, as in `collect/sources.csv`.
    """
    made = frame[(frame.label == 0) & frame.generator.notna()]
    made = made.groupby(["source", "generator"], as_index=False).n.sum()
    made = made.sort_values(["n", "source", "generator"], ascending=[False, True, True])
    shown = made.head(MOST)
    picture = Picture(style.WIDE, max(2.6, 0.95 + 0.155 * len(shown)))
    left, right = picture.subplots(1, 2, width_ratios=[1, 1])
    _stacked(left, frame.groupby(["source", "label"]).n.sum(), SOURCE_NAMES)
    left.set_title("Sources")
    picture.legend_above(left, ncols=2)

    if shown.empty:
        style.empty(right, "no source names its generators")
        return picture
    labels = [f"{g}  · {SOURCE_NAMES.get(s, s)}" for s, g in zip(shown.source, shown.generator, strict=True)]
    _bars(right, labels, shown.n, style.FAKE_COLOUR)
    right.tick_params(axis="y", labelsize=6)
    for i, number in enumerate(shown.n):
        style.direct_label(right, number, i, count(number))
    right.set_xlim(0, shown.n.max() * 1.15)
    right.set_xlabel("fakes")
    right.set_title("What made the fakes" + (f" (the {MOST} of most images)" if len(made) > MOST else ""))
    return picture


@drawing
def categories(frame: pd.DataFrame, release: pd.DataFrame | None = None) -> Picture:
    """Images by category and label, and each category's share beside the released FakeClue's (paper Fig. 2).

    Args:
        frame: one row an image with category and label.
        release: category, label, n of the released FakeClue; None leaves the comparison out.
    """
    picture = Picture(style.WIDE, 2.7)
    axes = picture.subplots(1, 2 if release is not None else 1, squeeze=False)[0]
    counts = frame.groupby(["category", "label"]).size()
    _stacked(axes[0], counts, CATEGORY_NAMES)
    axes[0].set_title("Categories, this run")
    if release is None:
        picture.legend_above(axes[0], ncols=2)
        return picture
    ours = _by_label(counts).sum(axis=1) / max(len(frame), 1)
    theirs = release.groupby("category").n.sum()
    theirs = (theirs / theirs.sum()).reindex(ours.index, fill_value=0)
    names, y = [CATEGORY_NAMES.get(name, name) for name in ours.index], np.arange(len(ours))
    axes[1].barh(y - 0.19, theirs, height=0.36, color=style.PAPER_COLOUR, label="released FakeClue")
    axes[1].barh(y + 0.19, ours, height=0.36, color=style.RUN_COLOUR, label="this run")
    for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        style.direct_label(axes[1], a, i - 0.19, percent(a))
        style.direct_label(axes[1], b, i + 0.19, percent(b))
    axes[1].set_yticks(y, names)
    axes[1].invert_yaxis()
    axes[1].set_xlim(0, max(theirs.max(), ours.max()) * 1.18)
    axes[1].xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[1].grid(axis="y", visible=False)
    axes[1].set_xlabel("share of all images")
    axes[1].set_title("Shares beside the release")
    picture.legend_above(*axes, ncols=4)
    return picture


@drawing
def confusion(frame: pd.DataFrame) -> Picture:
    """The category classifier's confusion where the truth is known: rows sum to 100 %.

    Args:
        frame: truth, predicted, n, as in `categorize/confusion.csv`.
    """
    picture = Picture(style.COLUMN, 2.9)
    axes = picture.subplots()
    if frame.empty or frame.n.sum() == 0:
        style.empty(axes, "no image's true category is known")
        return picture
    table = frame.pivot_table(index="truth", columns="predicted", values="n", aggfunc="sum", fill_value=0)
    order = sorted(set(table.index) | set(table.columns))
    table = table.reindex(index=order, columns=order, fill_value=0)
    table = table.loc[table.sum(axis=1) > 0]
    share = table.div(table.sum(axis=1), axis=0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i in range(len(table)):
        for j in range(len(order)):
            if number := int(table.iat[i, j]):
                words = f"{percent(share.iat[i, j])}\n{count(number)}"
                colour = "white" if share.iat[i, j] > 0.55 else style.INK
                axes.text(j, i, words, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(len(order)), [CATEGORY_NAMES.get(c, c) for c in order])
    axes.set_yticks(range(len(table)), [CATEGORY_NAMES.get(c, c) for c in table.index])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true category")
    right = sum(int(table.at[c, c]) for c in table.index)
    total = int(table.to_numpy().sum())
    axes.set_title(f"{percent(right / max(total, 1))} of {count(total)} right")
    return picture


@drawing
def clue_quality(frame: pd.DataFrame) -> Picture:
    """Precision, recall and F1 of the clues that each annotator names, and of their aggregate.

    Args:
        frame: annotator, precision, recall, f1, n, as in `annotate/clue_quality.csv`.
    """
    picture = Picture(style.COLUMN, 2.3)
    axes = picture.subplots()
    if frame.empty or frame[["precision", "recall", "f1"]].isna().all(axis=None):
        style.empty(axes, "the true clues are known\nonly in the miniature")
        return picture
    frame = frame.sort_values("annotator", key=lambda names: [(n == "aggregate", n) for n in names])
    x = np.arange(len(frame))
    shades = {"precision": style.SKY, "recall": style.ORANGE, "f1": style.INK}
    for k, (column, colour) in enumerate(shades.items()):
        heights = frame[column].to_numpy(dtype=float)
        title = "F1" if column == "f1" else column
        bars = axes.bar(x + (k - 1) * 0.26, heights, width=0.24, color=colour, label=title)
        axes.bar_label(bars, [f"{h:.2f}".lstrip("0") if h < 1 else "1.0" for h in heights], fontsize=6)
    last = len(frame) - 1
    if frame.annotator.iloc[last] == "aggregate":
        axes.axvspan(last - 0.5, last + 0.5, color=style.FAINT, alpha=0.45, zorder=0, linewidth=0)
    axes.set_xticks(x, [name.replace(" (", "\n(") for name in frame.annotator])
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_ylabel("against the true clues")
    axes.grid(axis="x", visible=False)
    picture.legend_above(axes, ncols=3)
    return picture


@drawing
def agreement(frame: pd.DataFrame) -> Picture:
    """How far each pair of annotators names the same artifacts: Jaccard index and Cohen's kappa.

    Args:
        frame: annotator_a, annotator_b, jaccard, kappa, n, one row a pair, as in `annotate/agreement.csv`.
    """
    picture = Picture(style.COLUMN, 0.95 + 0.42 * max(len(frame), 1))
    axes = picture.subplots()
    if frame.empty:
        style.empty(axes, "no two annotators to compare")
        return picture
    y = np.arange(len(frame))
    for column, offset, colour, name in (
        ("jaccard", -0.19, style.SKY, "Jaccard index"),
        ("kappa", 0.19, style.INK, "Cohen's κ"),
    ):
        axes.barh(y + offset, frame[column], height=0.36, color=colour, label=name)
        for i, value in enumerate(frame[column]):
            if np.isfinite(value):
                style.direct_label(axes, max(value, 0), i + offset, f"{value:.2f}")
    names = [f"{row.annotator_a}\n{row.annotator_b}" for row in frame.itertuples()]
    axes.set_yticks(y, names)
    axes.invert_yaxis()
    axes.set_xlim(min(0, frame[["jaccard", "kappa"]].min(axis=None)), 1)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("agreement on the artifacts named")
    picture.legend_above(axes, ncols=2)
    return picture

"""Figure 2: where FakeClue's images come from, what they show, and how well they are sorted and annotated."""

from typing import Any

import numpy as np
import pandas as pd

from fakevlm.reporting import style
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.texts import CATEGORY_NAMES, count, layout, percent

MOST = 24  # makers of fakes in a figure
SOURCE_NAMES: dict[str, str] = layout()["names"]["sources"]


def _stacked(axes: Any, counts: pd.Series, names: dict[str, str]) -> None:
    """Draw counts by name and label as bars, most images first, with count and share at their ends."""
    table = counts.unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    total = table.sum(axis=1).sort_values(ascending=False, kind="stable")
    table, y = table.loc[total.index], np.arange(len(table))
    axes.barh(y, table[0], color=style.FAKE_COLOUR, height=0.66, label="fake")
    style.rows(axes, [names.get(name, name) for name in table.index])
    axes.barh(y, table[1], left=table[0], color=style.REAL_COLOUR, height=0.66, label="real")
    texts = [f"{count(number)}  ({percent(number / max(total.sum(), 1))})" for number in total]
    style.direct_labels(axes, total, y, texts)
    axes.set_xlim(0, max(total.max(), 1) * 1.32)
    axes.set_xlabel("images")


@drawing
def sources(frame: pd.DataFrame) -> Picture:
    """Images of `collect/sources.csv` by source and label, and fakes by what made them (paper Fig. 2)."""
    makers = frame[(frame.label == 0) & frame.generator.notna()]
    makers = makers.groupby(["source", "generator"], as_index=False).n.sum()
    makers = makers.sort_values(["n", "source", "generator"], ascending=[False, True, True])
    shown = makers.head(MOST)
    picture = Picture(style.WIDE, max(2.6, 0.95 + 0.155 * len(shown)))
    left, right = picture.subplots(1, 2, width_ratios=[1, 1])
    _stacked(left, frame.groupby(["source", "label"]).n.sum(), SOURCE_NAMES)
    left.set_title("Sources")
    picture.legend_above(left, ncols=2)
    if shown.empty:
        return picture.empty("no source names its generators", right)
    y = np.arange(len(shown))
    right.barh(y, shown.n, color=style.FAKE_COLOUR, height=0.66)
    style.rows(right, shown.generator + "  · " + shown.source.replace(SOURCE_NAMES))
    right.tick_params(axis="y", labelsize=6)
    style.direct_labels(right, shown.n, y, shown.n.map(count))
    right.set_xlim(0, shown.n.max() * 1.15)
    right.set_xlabel("fakes")
    right.set_title("What made the fakes" + (f" (the {MOST} of most images)" if len(makers) > MOST else ""))
    return picture


@drawing
def categories(frame: pd.DataFrame, release: pd.DataFrame) -> Picture:
    """Images by category and label, and each category's share beside the released FakeClue's (paper Fig. 2).

    `frame` has a row an image with category and label; `release` category, label and n.
    """
    picture = Picture(style.WIDE, 2.7)
    axes = picture.subplots(1, 2)
    _stacked(axes[0], frame.groupby(["category", "label"]).size(), CATEGORY_NAMES)
    axes[0].set_title("Categories, this run")
    run = frame.groupby("category").size().sort_values(ascending=False, kind="stable") / max(len(frame), 1)
    released = release.groupby("category").n.sum()
    released = (released / released.sum()).reindex(run.index, fill_value=0)
    y = np.arange(len(run))
    axes[1].barh(y - 0.19, released, height=0.36, color=style.PAPER_COLOUR, label="released FakeClue")
    axes[1].barh(y + 0.19, run, height=0.36, color=style.RUN_COLOUR, label="this run")
    shares = np.column_stack([released, run]).ravel()
    style.direct_labels(axes[1], shares, np.column_stack([y - 0.19, y + 0.19]).ravel(), map(percent, shares))
    style.rows(axes[1], [CATEGORY_NAMES.get(name, name) for name in run.index])
    axes[1].set_xlim(0, max(released.max(), run.max()) * 1.18)
    axes[1].xaxis.set_major_formatter(lambda value, _: percent(value))
    axes[1].set_xlabel("share of all images")
    axes[1].set_title("Shares beside the release")
    picture.legend_above(*axes, ncols=4)
    return picture


@drawing
def confusion(frame: pd.DataFrame) -> Picture:
    """The classifier's confusion (`categorize/confusion.csv`) where it can be measured: rows sum to 100 %."""
    picture = Picture(style.COLUMN, 2.9)
    if not frame.n.sum():
        return picture.empty("no image's true category is known")
    axes = picture.subplots()
    table = frame.pivot_table(index="true", columns="predicted", values="n", aggfunc="sum", fill_value=0)
    order = sorted(set(table.index) | set(table.columns))
    table = table.reindex(columns=order, fill_value=0).loc[table.sum(axis=1) > 0]
    share = table.div(table.sum(axis=1), axis=0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in np.argwhere(table.to_numpy() > 0):
        words = f"{percent(share.iat[i, j])}\n{count(table.iat[i, j])}"
        colour = "white" if share.iat[i, j] > 0.55 else style.INK
        axes.text(j, i, words, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(len(order)), [CATEGORY_NAMES.get(c, c) for c in order])
    axes.set_yticks(range(len(table)), [CATEGORY_NAMES.get(c, c) for c in table.index])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true category")
    right, total = sum(table.at[c, c] for c in table.index), table.to_numpy().sum()
    axes.set_title(f"{percent(right / total)} of {count(total)} right")
    return picture


@drawing
def clue_quality(frame: pd.DataFrame) -> Picture:
    """Precision, recall and F1 of the clues of annotators and aggregate (`annotate/clue_quality.csv`)."""
    picture = Picture(style.COLUMN, 2.3)
    if frame[["precision", "recall", "f1"]].isna().all(axis=None):
        return picture.empty("the true clues are known\nonly in the miniature")
    axes = picture.subplots()
    frame = frame.sort_values("annotator", key=lambda names: [(n == "aggregate", n) for n in names])
    x, last = np.arange(len(frame)), len(frame) - 1
    shades = {"precision": style.SKY, "recall": style.ORANGE, "F1": style.INK}
    for k, (name, colour) in enumerate(shades.items()):
        heights = frame[name.lower()].to_numpy(dtype=float)
        bars = axes.bar(x + (k - 1) * 0.26, heights, width=0.24, color=colour, label=name)
        axes.bar_label(bars, [f"{h:.2f}".lstrip("0") if h < 1 else "1.0" for h in heights], fontsize=6)
    if frame.annotator.iloc[last] == "aggregate":
        axes.axvspan(last - 0.5, last + 0.5, color=style.FAINT, alpha=0.45, zorder=0, linewidth=0)
    axes.set_xticks(x, frame.annotator.str.replace(" (", "\n("))
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_ylabel("against the true clues")
    axes.grid(axis="x", visible=False)
    picture.legend_above(axes, ncols=3)
    return picture


@drawing
def agreement(frame: pd.DataFrame) -> Picture:
    """Jaccard index and Cohen's kappa of two annotators' artifacts (`annotate/agreement.csv`)."""
    picture = Picture(style.COLUMN, 0.95 + 0.42 * max(len(frame), 1))
    if frame.empty:
        return picture.empty("no two annotators to compare")
    axes, y = picture.subplots(), np.arange(len(frame))
    bars = (("jaccard", -0.19, style.SKY, "Jaccard index"), ("kappa", 0.19, style.INK, "Cohen's κ"))
    for column, offset, colour, name in bars:
        axes.barh(y + offset, frame[column], height=0.36, color=colour, label=name)
        style.direct_labels(axes, frame[column], y + offset, frame[column].map("{:.2f}".format))
    style.rows(axes, frame.annotator_a + "\n" + frame.annotator_b)
    axes.set_xlim(min(0, frame[["jaccard", "kappa"]].min(axis=None)), 1)
    axes.set_xlabel("agreement on the artifacts named")
    picture.legend_above(axes, ncols=2)
    return picture

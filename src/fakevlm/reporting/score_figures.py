"""Figures of scores: paradigms (Fig. 3), training curves, robustness, categories, kinds of artifact.

All take the tidy scores that the stages write: method, benchmark, subset, metric, value, ci_low, ci_high, n.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fakevlm.data.clues import KINDS
from fakevlm.reporting import style
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.texts import BENCHMARKS, CATEGORY_NAMES, METRICS, count, percent

PARADIGMS = (
    "Frozen QA",
    "Linear probe (vision tower)",
    "Linear probe (LMM last layer)",
    "Direct real/fake QA",
    "Explanatory VQA",
)
PERTURBATIONS = {
    "jpeg": "JPEG quality",
    "resize": "resize factor",
    "blur": "blur, σ in pixels",
    "noise": "noise, σ of 255",
    "crop": "crop, side kept",
}
AXIS = (
    "accuracy (bar, 95 % interval, number) and AUC (diamond); "
    "mute: answers without a verdict, which count as wrong"
)
OBJECTIVES = {"explanation": "explanatory text", "head": "linear head", "label": "label only"}
_FALLING = {"jpeg", "resize", "crop"}  # a smaller value is a stronger perturbation
_SPARE = (style.SKY, style.INK, style.ORANGE, style.GREEN)


def _colour(method: str, position: int) -> str:
    return style.METHOD_COLOURS.get(method, _SPARE[position % len(_SPARE)])


def _marker(method: str) -> str:
    return style.METHOD_MARKERS.get(method, "o")


def _errors(frame: pd.DataFrame) -> np.ndarray:
    """Return the distances from value to the interval's ends, (2, n); NaN (not drawn) without one."""
    ends = (frame.value - frame.ci_low, frame.ci_high - frame.value)
    return np.stack([end.clip(lower=0).to_numpy(dtype=float) for end in ends])


def _half(axes: Any, width: float = 0.7) -> None:
    """Draw the line of one half, which a coin reaches."""
    axes.axhline(0.5, color=style.QUIET, linewidth=width, linestyle=(0, (3, 2)), zorder=0.5)


def _ordered(methods: Sequence[str], first: Sequence[str]) -> list[str]:
    return [m for m in first if m in set(methods)] + sorted(set(methods) - set(first))


@drawing
def paradigms(scores: pd.DataFrame) -> Picture:
    """Accuracy (bars, 95 % intervals) and AUC (diamonds) of the paradigms on each benchmark (Fig. 3).

    Args:
        scores: tidy, from `study/scores.csv`; rows with subset `all` and metrics acc and auc are drawn.
    """
    scores = scores[scores.subset == "all"]
    benchmarks = [b for b in BENCHMARKS if b in set(scores.benchmark)]
    picture = Picture(style.WIDE, 2.35)
    panels = picture.subplots(1, max(len(benchmarks), 1), sharey=True, squeeze=False)[0]
    methods = _ordered(scores.method.unique(), PARADIGMS)
    shades = {"Frozen QA": style.GREY, "Direct real/fake QA": style.ORANGE, "Explanatory VQA": style.BLUE}
    y = np.arange(len(methods))
    for axes, benchmark in zip(panels, benchmarks, strict=False):
        part = scores[scores.benchmark == benchmark]
        acc, auc, unparsed = (
            part[part.metric == m].set_index("method").reindex(methods) for m in ("acc", "auc", "unparsed")
        )
        whiskers = {"elinewidth": 0.9, "capsize": 2, "ecolor": style.INK}
        colours = [shades.get(m, style.SKY) for m in methods]
        axes.barh(y, acc.value, xerr=_errors(acc), height=0.6, color=colours, error_kw=whiskers)
        axes.plot(auc.value, y, "D", color=style.INK, markerfacecolor="white", markeredgewidth=0.9)
        for i, value in enumerate(acc.value):
            if np.isfinite(value):
                # Numbers stand at the right, where no bar, whisker or diamond lies.
                mute = unparsed.value.iloc[i]
                blank = f"\n({percent(mute)} mute)" if mute >= 0.01 else ""
                axes.text(1.03, i, f"{value:.3f}{blank}", va="center", fontsize=6.5, linespacing=1.0)
        axes.axvline(0.5, color=style.QUIET, linewidth=0.8, linestyle=(0, (3, 2)), zorder=0.5)
        axes.set_xlim(0, 1.3)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
        n = acc.n.dropna()
        axes.set_title(BENCHMARKS[benchmark] + (f"  ({count(n.iloc[0])} images)" if len(n) else ""))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(y, methods)
    panels[0].invert_yaxis()
    picture.supxlabel(AXIS, fontsize=7)
    return picture


@drawing
def training_curves(logs: Mapping[str, pd.DataFrame]) -> Picture:
    """Training loss of each objective, and the learning rate.

    Args:
        logs: objective → step, epoch, loss, learning_rate and, where measured, val_loss, as in
            `finetune/<objective>/log.csv`.
    """
    picture = Picture(style.WIDE, 2.1)
    panels = picture.subplots(1, len(logs) + 1)
    colours = (style.BLUE, style.ORANGE, style.GREEN)
    for axes, colour, line, (objective, log) in zip(
        panels, colours, ("-", "--", ":"), logs.items(), strict=False
    ):
        name = OBJECTIVES.get(objective, objective)
        part = log.dropna(subset=["loss"]).sort_values("step", kind="stable")
        smooth = part.loss.rolling(max(1, len(part) // 25), min_periods=1, center=True).median()
        axes.plot(part.step, part.loss, color=colour, alpha=0.35, linewidth=0.7)
        axes.plot(part.step, smooth, color=colour, label="training")
        if "val_loss" in log:
            part = log.dropna(subset=["val_loss"])
            axes.plot(part.step, part.val_loss, "D", color=style.INK, label="validation")
            axes.legend(loc="best")
        axes.set(title=f"Loss, {name}", xlabel="step")
        axes.set_ylim(bottom=0)
        part = log.dropna(subset=["learning_rate"]).sort_values("step", kind="stable")
        panels[-1].plot(part.step, part.learning_rate, color=colour, linestyle=line, label=name)
    panels[0].set_ylabel("loss")
    panels[-1].set(title="Learning rate", xlabel="step")
    panels[-1].yaxis.set_major_formatter(
        lambda value, _: f"{value:.0e}".replace("e-0", "e-") if value else "0"
    )
    panels[-1].legend(loc="best")
    return picture


def _severity(scores: pd.DataFrame, name: str) -> list[str]:
    """The strengths of one perturbation, mildest first, as written in `subset`."""
    texts = {s.split("=", 1)[1] for s in scores.subset.unique() if s.startswith(f"{name}=")}
    return sorted(texts, key=float, reverse=name in _FALLING)


@drawing
def robustness(scores: pd.DataFrame, metrics: Sequence[str] = ("acc", "auc")) -> Picture:
    """Scores against the strength of each perturbation, with 95 % bands; `none` is the untouched image.

    Args:
        scores: tidy, from `robustness/scores.csv`; subset is `none` or `<perturbation>=<strength>`.
        metrics: one row of panels each; those without a value are left out.
    """
    metrics = [m for m in metrics if scores[scores.metric == m].value.notna().any()]
    kinds = [k for k in PERTURBATIONS if _severity(scores, k)]
    kinds += sorted({s.split("=")[0] for s in scores.subset if "=" in s} - set(kinds))
    picture = Picture(style.WIDE, 0.75 + 1.45 * max(len(metrics), 1))
    if not metrics or not kinds:
        style.empty(picture.subplots(), "no perturbation was run")
        return picture
    grid = picture.subplots(len(metrics), len(kinds), sharey="row", squeeze=False)
    methods = _ordered(scores.method.unique(), tuple(style.METHOD_COLOURS))
    for i, metric in enumerate(metrics):
        part = scores[scores.metric == metric]
        for j, kind in enumerate(kinds):
            strengths = _severity(scores, kind)
            subsets = ["none", *(f"{kind}={s}" for s in strengths)]
            axes = grid[i, j]
            for k, method in enumerate(methods):
                line = part[part.method == method].set_index("subset").reindex(subsets)
                if line.value.isna().all():
                    continue
                x, colour = np.arange(len(subsets)), _colour(method, k)
                low, high, value = (line[c].astype(float) for c in ("ci_low", "ci_high", "value"))
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(x, value, color=colour, marker=_marker(method), label=method)
            if metric in ("acc", "auc"):
                _half(axes)
            axes.set_xticks(range(len(subsets)), ["–", *strengths], fontsize=6.5)
            axes.grid(axis="x", visible=False)
            if i == len(metrics) - 1:
                axes.set_xlabel(PERTURBATIONS.get(kind, kind))
        grid[i, 0].set_ylabel(METRICS.get(metric, metric))
    picture.legend_above(grid[0, 0], ncols=min(len(methods), 6))
    return picture


@drawing
def per_category(scores: pd.DataFrame, metric: str = "acc") -> Picture:
    """One metric by category and method, with 95 % intervals.

    Args:
        scores: tidy, one benchmark; rows with subset `category=<c>` are drawn.
    """
    part = scores[scores.subset.str.startswith("category=") & (scores.metric == metric)].copy()
    part["category"] = part.subset.str.removeprefix("category=")
    picture = Picture(style.WIDE, 2.4)
    axes = picture.subplots()
    if part.value.isna().all():
        style.empty(axes, "no category is known")
        return picture
    methods = _ordered(part.method.unique(), tuple(style.METHOD_COLOURS))
    categories = [c for c in CATEGORY_NAMES if c in set(part.category)]
    categories += sorted(set(part.category) - set(categories))
    step = 0.8 / len(methods)
    for k, method in enumerate(methods):
        line = part[part.method == method].set_index("category").reindex(categories)
        look = {"color": _colour(method, k), "markersize": 3.8, "elinewidth": 0.9}
        if line.value.max() == 0:  # drawn, a method that never decides would squeeze all others into a corner
            axes.plot([], [], _marker(method), color=look["color"], label=f"{method}: 0")
            continue
        x = np.arange(len(categories)) + (k - (len(methods) - 1) / 2) * step
        value = line.value.astype(float)
        axes.errorbar(x, value, yerr=_errors(line), fmt=_marker(method), label=method, **look)
    _half(axes)
    for edge in np.arange(len(categories) - 1) + 0.5:
        axes.axvline(edge, color=style.FAINT, linewidth=0.6)
    axes.set_xlim(-0.5, len(categories) - 0.5)
    sizes = part.groupby("category").n.max()
    labels = [f"{CATEGORY_NAMES.get(c, c)}\n(n = {count(sizes[c])})" for c in categories]
    axes.set_xticks(range(len(categories)), labels)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(METRICS.get(metric, metric))
    axes.set_ylim(top=1.02)
    picture.legend_above(axes, ncols=6, order=methods)
    return picture


@drawing
def per_kind(scores: pd.DataFrame, method: str = "FakeVLM") -> Picture:
    """How often each kind of artifact that a fake has is named in its explanation, with 95 % intervals.

    Args:
        scores: tidy, one benchmark; rows with subset `kind=<k>` and metric clue_recall are drawn.
        method: whose.
    """
    part = scores[(scores.method == method) & (scores.metric == "clue_recall") & scores.value.notna()]
    part = part[part.subset.str.startswith("kind=")].copy()
    picture = Picture(style.COLUMN, max(1.4, 0.7 + 0.165 * len(part)))
    axes = picture.subplots()
    if part.empty:
        style.empty(axes, "the true artifacts are known\nonly in the miniature")
        return picture
    part["kind"] = part.subset.str.removeprefix("kind=")
    part["family"] = [KINDS[kind].family for kind in part.kind]
    part["rank"] = part.family.map(list(style.FAMILY_COLOURS).index)
    part = part.sort_values(["rank", "value", "kind"], ascending=[True, False, True], kind="stable")
    y = np.arange(len(part))
    for family, colour in style.FAMILY_COLOURS.items():
        mask = (part.family == family).to_numpy()
        here, whiskers = part[mask], {"ecolor": style.INK, "elinewidth": 0.8, "capsize": 1.5}
        axes.barh(y[mask], here.value, height=0.62, color=colour, label=family)
        axes.errorbar(here.value, y[mask], xerr=_errors(here), fmt="none", **whiskers)
    for i, row in enumerate(part.itertuples()):
        axes.text(1.04, i, f"{row.value:.2f}  (n {count(row.n)})", va="center", fontsize=6)
    axes.set_yticks(y, part.kind.str.replace("_", " "))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of explanations that name it")
    picture.legend_above(axes, ncols=3)
    return picture

"""Figures of scores: paradigms (Fig. 3), training curves, robustness, categories, kinds of artifact.

All take the tidy scores that the stages write: method, benchmark, subset, metric, value, ci_low, ci_high, n.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from fakevlm.data.clues import KINDS
from fakevlm.reporting import style
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.texts import BENCHMARKS, CATEGORY_NAMES, METHOD, METRICS, count, layout, percent

PARADIGMS: list[str] = layout()["names"]["paradigms"]
PERTURBATIONS: dict[str, str] = layout()["names"]["perturbations"]
OBJECTIVES: dict[str, str] = layout()["names"]["objectives"]
_FALLING = {"jpeg", "resize", "crop"}  # a smaller value is a stronger perturbation
_SPARE = ((style.SKY, "o"), (style.INK, "o"), (style.ORANGE, "o"), (style.GREEN, "o"))
_DASHED = {"color": style.QUIET, "linestyle": (0, (3, 2)), "zorder": 0.5}  # the line of one half
_QUARTERS = [0, 0.25, 0.5, 0.75, 1.0]


def _ordered(names: Iterable[str], first: Iterable[str]) -> list[str]:
    """Return names in the order of `first`, then the others by alphabet."""
    return [name for name in first if name in set(names)] + sorted(set(names) - set(first))


def _errors(frame: pd.DataFrame) -> np.ndarray:
    """Return the distances from value to the interval's ends, (2, n); NaN (not drawn) without one."""
    ends = (frame.value - frame.ci_low, frame.ci_high - frame.value)
    return np.stack([end.clip(lower=0).to_numpy(dtype=float) for end in ends])


@drawing
def paradigms(scores: pd.DataFrame) -> Picture:
    """Accuracy (bars, 95 % intervals) and AUC (diamonds) of the paradigms in `study/scores.csv` (Fig. 3)."""
    scores = scores[scores.subset == "all"]
    benchmarks = [b for b in BENCHMARKS if b in set(scores.benchmark)]
    picture = Picture(style.WIDE, 2.35)
    panels = picture.subplots(1, max(len(benchmarks), 1), sharey=True, squeeze=False)[0]
    methods = _ordered(scores.method, PARADIGMS)
    shades = {"Frozen QA": style.GREY, "Direct real/fake QA": style.ORANGE, "Explanatory VQA": style.BLUE}
    y, colours = np.arange(len(methods)), [shades.get(method, style.SKY) for method in methods]
    whiskers = {"elinewidth": 0.9, "capsize": 2, "ecolor": style.INK}
    for axes, benchmark in zip(panels, benchmarks, strict=False):
        part = scores[scores.benchmark == benchmark]
        tables = (part[part.metric == metric].set_index("method") for metric in ("acc", "auc", "unparsed"))
        acc, auc, unparsed = (table.reindex(methods) for table in tables)
        axes.barh(y, acc.value, xerr=_errors(acc), height=0.6, color=colours, error_kw=whiskers)
        axes.plot(auc.value, y, "D", color=style.INK, markerfacecolor="white", markeredgewidth=0.9)
        for i, (value, mute) in enumerate(zip(acc.value, unparsed.value, strict=True)):
            if np.isfinite(value):
                # Numbers stand at the right, where no bar, whisker or diamond lies.
                blank = f"\n({percent(mute)} mute)" if mute >= 0.01 else ""
                axes.text(1.03, i, f"{value:.3f}{blank}", va="center", fontsize=6.5, linespacing=1.0)
        axes.axvline(0.5, linewidth=0.8, **_DASHED)
        axes.set(xlim=(0, 1.3), xticks=_QUARTERS)
        axes.set_title(BENCHMARKS[benchmark] + "".join(f"  ({count(n)} images)" for n in acc.n.dropna()[:1]))
        axes.grid(axis="y", visible=False)
    style.rows(panels[0], methods)
    picture.supxlabel(layout()["paradigms_axis"], fontsize=7)
    return picture


@drawing
def training_curves(logs: Mapping[str, pd.DataFrame]) -> Picture:
    """Loss of each objective (→ its `finetune/<objective>/log.csv`) on both splits, and the learning rate."""
    picture = Picture(style.WIDE, 2.1)
    *panels, rates = picture.subplots(1, len(logs) + 1)
    paints = ((style.BLUE, "-"), (style.ORANGE, "--"), (style.GREEN, ":"))
    for axes, (colour, line), (objective, log) in zip(panels, paints, logs.items(), strict=False):
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
        rates.plot(part.step, part.learning_rate, color=colour, linestyle=line, label=name)
    panels[0].set_ylabel("loss")
    rates.set(title="Learning rate", xlabel="step")
    rates.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-") if value else "0")
    rates.legend(loc="best")
    return picture


@drawing
def robustness(scores: pd.DataFrame) -> Picture:
    """Accuracy and AUC by strength of each perturbation, with 95 % bands (`robustness/scores.csv`)."""
    metrics = [m for m in ("acc", "auc") if scores[scores.metric == m].value.notna().any()]
    subsets = pd.Series(scores.subset.unique(), dtype=object)
    pairs = subsets[subsets.str.contains("=")].str.split("=", n=1, expand=True)
    kinds = {  # → its strengths, mildest first, as written in `subset`
        kind: sorted(pairs[1][pairs[0] == kind], key=float, reverse=kind in _FALLING)
        for kind in _ordered(pairs.get(0, []), PERTURBATIONS)
    }
    picture = Picture(style.WIDE, 0.75 + 1.45 * max(len(metrics), 1))
    if not metrics or not kinds:
        return picture.empty("no perturbation was run")
    grid = picture.subplots(len(metrics), len(kinds), sharey="row", squeeze=False)
    methods = _ordered(scores.method, style.METHODS)
    for row, metric in zip(grid, metrics, strict=True):
        part = scores[scores.metric == metric]
        for axes, (kind, strengths) in zip(row, kinds.items(), strict=True):
            subsets = ["none", *(f"{kind}={s}" for s in strengths)]
            x = np.arange(len(subsets))
            for k, method in enumerate(methods):
                line = part[part.method == method].set_index("subset")
                line = line.reindex(subsets, columns=["ci_low", "ci_high", "value"]).astype(float)
                if line.value.notna().any():
                    colour, marker = style.METHODS.get(method, _SPARE[k % len(_SPARE)])
                    axes.fill_between(x, line.ci_low, line.ci_high, color=colour, alpha=0.15, linewidth=0)
                    axes.plot(x, line.value, color=colour, marker=marker, label=method)
            axes.axhline(0.5, linewidth=0.7, **_DASHED)
            axes.set_xticks(x, ["–", *strengths], fontsize=6.5)
            axes.grid(axis="x", visible=False)
        row[0].set_ylabel(METRICS[metric])
    for axes, kind in zip(grid[-1], kinds, strict=True):
        axes.set_xlabel(PERTURBATIONS.get(kind, kind))
    picture.legend_above(grid[0, 0], ncols=min(len(methods), 6))
    return picture


@drawing
def per_category(scores: pd.DataFrame) -> Picture:
    """Accuracy by category and method, with 95 % intervals, from the tidy scores of one benchmark."""
    part = scores[scores.subset.str.startswith("category=") & (scores.metric == "acc")]
    part = part.assign(category=part.subset.str.removeprefix("category="))
    picture = Picture(style.WIDE, 2.4)
    if part.value.isna().all():
        return picture.empty("no category is known")
    axes = picture.subplots()
    methods, categories = _ordered(part.method, style.METHODS), _ordered(part.category, CATEGORY_NAMES)
    for k, method in enumerate(methods):
        line = part[part.method == method].set_index("category").reindex(categories)
        colour, marker = style.METHODS.get(method, _SPARE[k % len(_SPARE)])
        if line.value.max() == 0:  # drawn, a method that never decides would squeeze all others into a corner
            axes.plot([], [], marker, color=colour, label=f"{method}: 0")
            continue
        x = np.arange(len(categories)) + (k - (len(methods) - 1) / 2) * 0.8 / len(methods)
        points = {"label": method, "color": colour, "markersize": 3.8, "elinewidth": 0.9}
        axes.errorbar(x, line.value.astype(float), yerr=_errors(line), fmt=marker, **points)
    axes.axhline(0.5, linewidth=0.7, **_DASHED)
    for edge in np.arange(len(categories) - 1) + 0.5:
        axes.axvline(edge, color=style.FAINT, linewidth=0.6)
    axes.set_xlim(-0.5, len(categories) - 0.5)
    sizes = part.groupby("category").n.max()
    labels = [f"{CATEGORY_NAMES.get(c, c)}\n(n = {count(sizes[c])})" for c in categories]
    axes.set_xticks(range(len(categories)), labels)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(METRICS["acc"])
    axes.set_ylim(top=1.02)
    picture.legend_above(axes, ncols=6, order=methods)
    return picture


@drawing
def per_kind(scores: pd.DataFrame) -> Picture:
    """How often FakeVLM names each kind of artifact that a fake has (`clue_recall` of subset `kind=<k>`)."""
    part = scores[(scores.method == METHOD) & (scores.metric == "clue_recall") & scores.value.notna()]
    part = part[part.subset.str.startswith("kind=")]
    picture = Picture(style.COLUMN, max(1.4, 0.7 + 0.165 * len(part)))
    if part.empty:
        return picture.empty("the true artifacts are known\nonly in the miniature")
    axes = picture.subplots()
    part = part.assign(kind=part.subset.str.removeprefix("kind="))
    part["rank"] = [list(style.FAMILY_COLOURS).index(KINDS[kind].family) for kind in part.kind]
    part = part.sort_values(["rank", "value", "kind"], ascending=[True, False, True], ignore_index=True)
    whiskers = {"ecolor": style.INK, "elinewidth": 0.8, "capsize": 1.5}
    for rank, (family, colour) in enumerate(style.FAMILY_COLOURS.items()):
        rows = part[part["rank"] == rank]
        axes.barh(rows.index, rows.value, height=0.62, color=colour, label=family)
        axes.errorbar(rows.value, rows.index, xerr=_errors(rows), fmt="none", **whiskers)
    for i, row in enumerate(part.itertuples()):
        axes.text(1.04, i, f"{row.value:.2f}  (n {count(row.n)})", va="center", fontsize=6)
    style.rows(axes, part.kind.str.replace("_", " "))
    axes.set(xlim=(0, 1.4), xticks=_QUARTERS)
    axes.set_xlabel("share of explanations that name it")
    picture.legend_above(axes, ncols=3)
    return picture

"""The paper's arithmetic done again: which printed numbers follow from other printed numbers.

A printed number is rounded: it stands for an interval of half a unit in its last place either way. A claim
*follows* if what is recomputed (an interval too) meets it. Shares are in percent. report.yaml has the words.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from fakevlm.reporting.published import Published
from fakevlm.reporting.texts import MANIPULATIONS, METHOD, fill, layout

SLACK = 1e-9  # 84.3 is not exact in binary
# Whether the printed F1 fits F1(real), F1(fake) → its positive class.
POSITIVE = {(True, True): "either", (True, False): "real", (False, True): "fake", (False, False): "neither"}


@dataclass(frozen=True)
class Check:
    """One recomputation; `low` and `high` follow from the other printed numbers, given their rounding."""

    where: str  # the table or section that prints the number
    what: str
    printed: float
    low: float
    high: float
    half: float = 0.05  # half a unit of the printed number's last place

    @property
    def follows(self) -> bool:
        return self.low - self.half - SLACK <= self.printed <= self.high + self.half + SLACK

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


def _check(kind: str, printed: float, low: float, high: float | None = None, **facts: Any) -> Check:
    """Return a check in the words of report.yaml."""
    spec = layout()["checks"][kind]
    where, what = (fill(spec[key], **facts) for key in ("where", "what"))
    return Check(where, what, printed, low, low if high is None else high, spec["half"])


def checks(published: Published) -> list[Check]:
    """Return every claim of the paper that can be recomputed from its other numbers, in the paper's order."""
    claims, training = published.claims, published.training

    def gain(name: str, table: str, other: str, *columns: str) -> Check:
        """A claimed improvement of FakeVLM: the mean difference in some columns of a table."""
        values = 100 * published.values(table)[list(columns)]
        mean = float((values.loc[METHOD] - values.loc[other]).mean())
        return _check("gain", claims[name]["value"], mean - 0.1, mean + 0.1, claim=claims[name])

    images, answers = published.released(), published.release["fakeclue_answers"]
    fakes, real = images[~images.category.isin(["satellite", "doc"])].groupby("label").n.sum()
    patches = (training["image_size"]["value"] / training["patch_size"]["value"]) ** 2
    hits, errors = answers["real_as_real"], answers["fake_as_real"] + answers["real_as_fake"]
    table2, table6 = published.values("table2"), published.values("table6")
    rows = [
        _check("ratio", claims["open-ratio"]["value"], fakes / real),
        _check("prompts", claims["prompts"]["value"], 7 * 2),
        _check("patches", claims["patches"]["value"], patches),
        _check("released_f1", table2["fakeclue/all/f1"][METHOD], 2 * hits / (2 * hits + errors)),
        gain("improvement-acc", "table2", "Qwen2-VL-72B", "fakeclue/all/acc", "loki/all/acc"),
        gain("improvement-f1", "table2", "Qwen2-VL-72B", "fakeclue/all/f1", "loki/all/f1"),
    ]
    for method, row in published.values("table3").iterrows():
        for subset in ("Real", "Fake"):
            accuracy, printed = row[f"dmimage/{subset}/acc"], 100 * row[f"dmimage/{subset}/f1"]
            ends = (200 * a / (1 + a) for a in (accuracy - 0.0005, accuracy + 0.0005))  # precision is 1
            rows.append(_check("single_class", printed, *ends, method=method, subset=subset))
    rows += [
        gain("common-df-acc", "table4", "Common-DF-TI", "ddvqa/all/acc"),
        gain("common-df-f1", "table4", "Common-DF-TI", "ddvqa/all/f1"),
        gain("common-df-rouge", "table4", "Common-DF-TI", "ddvqa/all/rouge_l"),
    ]
    for method, row in (100 * published.values("table5")).iterrows():
        mean = row[[f"ffpp/{name}/auc" for name in MANIPULATIONS]].mean()
        rows.append(_check("average", row["ffpp/Average/auc"], mean - 0.05, mean + 0.05, method=method))
    for metric in ("f1", "rouge_l"):
        printed = table6[f"loki/all/{metric}"]["LLaVA + Explanatory Text"]
        rows.append(_check("ablation", printed, table2[f"loki/all/{metric}"][METHOD], metric=metric))
    return rows


def mixtures(published: Published) -> list[dict[str, Any]]:
    """Return for each row of Table 3 the share of real images behind its overall accuracy, and which F1 fits.

    With recall r of real images, recall f of fakes and a share p of real images, accuracy is pr + (1−p)f,
    so p = (acc − f)/(r − f); both F1 values (percent) follow. Ranges (lowest, highest) are over the rounding
    of the three accuracies. `positive` says which class's F1 the printed overall one can be (`POSITIVE`).
    """
    rounding = np.array(list(product((-0.0005, 0, 0.0005), repeat=3))).T
    rows = []
    for method, row in published.values("table3").iterrows():
        accuracies = row[[f"dmimage/{subset}/acc" for subset in ("Real", "Fake", "Overall")]].to_numpy()
        r, f, overall = accuracies[:, None] + rounding
        p = np.clip((overall - f) / (r - f), 0, 1)
        errors = p * (1 - r) + (1 - p) * (1 - f)
        f1_real = 100 * 2 * p * r / (2 * p * r + errors)
        f1_fake = 100 * 2 * (1 - p) * f / (2 * (1 - p) * f + errors)
        share, f1_real, f1_fake = ((float(x.min()), float(x.max())) for x in (p, f1_real, f1_fake))
        printed = round(100 * row["dmimage/Overall/f1"], 6)
        fits = tuple(Check("", "", printed, *ends).follows for ends in (f1_real, f1_fake))
        ranges = {"share": share, "f1_real": f1_real, "f1_fake": f1_fake}
        rows.append({"method": method, **ranges, "printed": printed, "positive": POSITIVE[fits]})
    return rows

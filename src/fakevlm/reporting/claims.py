"""The paper's arithmetic done again: averages, differences and F1 values that follow, or not, from other printed numbers.

Printed numbers are rounded, so each stands for an interval of half a unit in its last place either way. A claim *follows*
if the interval of what is recomputed meets the interval of what is printed; only then is a disagreement a contradiction.
"""

from dataclasses import dataclass
from itertools import product

from fakevlm.reporting.published import Published, load_published

HALF = {"percent": 0.05, "fraction": 0.0005}


@dataclass(frozen=True)
class Check:
    """One recomputation.

    Attributes:
        where: the table or section that prints the number.
        what: in words.
        printed: as printed.
        low, high: what follows from the other printed numbers, given their rounding; same unit.
        half: half a unit of the printed number's last place.
    """

    where: str
    what: str
    printed: float
    low: float
    high: float
    half: float

    @property
    def follows(self) -> bool:
        # A hair of slack: 84.3 is not exact in binary.
        return self.low - self.half - 1e-9 <= self.printed <= self.high + self.half + 1e-9

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Mixture:
    """What Table 3's overall accuracy says about a row's share of real images, and which F1 its overall F1 then is.

    Attributes:
        method: the row.
        share: lowest and highest share of real images that gives the printed overall accuracy.
        f1_real, f1_fake: what F1 is with that share and each class as the positive one, as ranges in percent.
        printed: the overall F1.
    """

    method: str
    share: tuple[float, float]
    f1_real: tuple[float, float]
    f1_fake: tuple[float, float]
    printed: float

    @property
    def positive(self) -> str:
        """`real`, `fake`, `either` or `neither`: whose F1 the printed one can be."""
        fits = [
            name
            for name, (low, high) in (("real", self.f1_real), ("fake", self.f1_fake))
            if low - 0.05 - 1e-9 <= self.printed <= high + 0.05 + 1e-9
        ]
        return {0: "neither", 1: fits[0] if fits else "", 2: "either"}[len(fits)]


def single_class_f1(accuracy: float) -> float:
    """F1 on images of one class only, where precision is 1: 2a/(1+a)."""
    return 2 * accuracy / (1 + accuracy)


def _average(table: str, columns: list[str], target: str, published: Published) -> list[Check]:
    source = published.table(table)
    half = HALF[source.scale]
    checks = []
    for row in source.rows:
        values = [source.printed(row.method, column) for column in columns]
        mean = sum(values) / len(values)
        checks.append(
            Check(
                source.number,
                f"{row.method}: average of the four manipulations",
                source.printed(row.method, target),
                mean - half,
                mean + half,
                half,
            )
        )
    return checks


def _per_class_f1(published: Published) -> list[Check]:
    table = published.table("table3")
    checks = []
    for row in table.rows:
        for subset in ("Real", "Fake"):
            accuracy = table.printed(row.method, f"dmimage/{subset}/acc")
            low, high = (100 * single_class_f1((accuracy + d) / 100) for d in (-0.05, 0.05))
            printed = table.printed(row.method, f"dmimage/{subset}/f1")
            checks.append(
                Check(
                    "Table 3",
                    f"{row.method}, {subset}: F1 = 2a/(1+a) of its accuracy",
                    printed,
                    low,
                    high,
                    0.05,
                )
            )
    return checks


def _difference(published: Published, claim: str, pairs: list[tuple[str, str, str, str]]) -> Check:
    """A claimed improvement against the mean difference of `pairs`: (table, column, better row, other row)."""
    printed = published.claim(claim)
    differences, half = [], 0.0
    for name, column, better, other in pairs:
        table = published.table(name)
        differences.append(100 * (table.printed(better, column) - table.printed(other, column)))
        half = max(half, 100 * 2 * HALF[table.scale])
    mean = sum(differences) / len(differences)
    return Check(f"Section {printed.section}", printed.text, printed.value, mean - half, mean + half, 0.05)


def checks(published: Published | None = None) -> list[Check]:
    """Every claim of the paper that can be recomputed from its other numbers, in the paper's order."""
    published = published or load_published()
    ours = published.paper.method
    over_qwen = {
        m: [("table2", f"{b}/all/{m}", ours, "Qwen2-VL-72B") for b in ("fakeclue", "loki")]
        for m in ("acc", "f1")
    }
    over_common = {m: [("table4", f"ddvqa/all/{m}", ours, "Common-DF-TI")] for m in ("acc", "f1", "rouge_l")}
    manipulations = [f"ffpp/{m}/auc" for m in ("FF-DF", "FF-F2F", "FF-FS", "FF-NT")]
    release = published.release.frame()
    open_part = release[~release.category.isin(["satellite", "doc"])].groupby("label").n.sum()
    answers = published.release.fakeclue_answers
    hits, errors = answers["real_as_real"], answers["fake_as_real"] + answers["real_as_fake"]
    f1_real = 2 * hits / (2 * hits + errors)
    patches = (published.training["image_size"].value / published.training["patch_size"].value) ** 2
    tables = published.table("table2")
    found = [
        Check(
            "Section 3.2",
            "fakes to a real in the open-source part, counted in the release",
            1.0,
            *2 * (float(open_part[0] / open_part[1]),),
            0.05,
        ),
        Check(
            "Section 3.2",
            "label prompts: seven categories times two labels",
            published.claim("prompts").value,
            14,
            14,
            0.5,
        ),
        Check(
            "Section 4.2",
            "patches an image: (image size / patch size)²",
            published.claim("patches").value,
            patches,
            patches,
            0.5,
        ),
        Check(
            "Table 2",
            "FakeVLM's F1 on FakeClue as F1(real) of the released weights' answers",
            tables.printed(ours, "fakeclue/all/f1"),
            f1_real,
            f1_real,
            0.0005,
        ),
        _difference(published, "improvement-acc", over_qwen["acc"]),
        _difference(published, "improvement-f1", over_qwen["f1"]),
    ]
    found += _per_class_f1(published)
    found += [
        _difference(published, f"common-df-{m.split('_')[0]}", pairs) for m, pairs in over_common.items()
    ]
    found += _average("table5", manipulations, "ffpp/Average/auc", published)
    for metric in ("f1", "rouge_l"):
        printed = tables.printed(ours, f"loki/all/{metric}")
        other = published.table("table6").printed("LLaVA + Explanatory Text", f"loki/all/{metric}")
        found.append(
            Check("Table 6", f"LOKI {metric} of the same model in Table 2", other, printed, printed, 0.0005)
        )
    return found


def mixtures(published: Published | None = None) -> list[Mixture]:
    """For each row of Table 3 the share of real images behind its overall accuracy, and which F1 fits.

    With recall r of real images, recall f of fakes and a share p of real images, the accuracy is pr + (1−p)f, so
    p = (acc − f)/(r − f); from p, r and f both F1 values follow. Ranges are over the rounding of the three accuracies.
    """
    table = (published or load_published()).table("table3")
    found = []
    for row in table.rows:
        real, fake, overall = (
            table.printed(row.method, f"dmimage/{s}/acc") / 100 for s in ("Real", "Fake", "Overall")
        )
        shares, as_real, as_fake = [], [], []
        for dr, df, da in product((-0.0005, 0, 0.0005), repeat=3):
            r, f, accuracy = real + dr, fake + df, overall + da
            p = min(1.0, max(0.0, (accuracy - f) / (r - f)))
            errors = p * (1 - r) + (1 - p) * (1 - f)
            shares.append(p)
            as_real.append(100 * 2 * p * r / (2 * p * r + errors))
            as_fake.append(100 * 2 * (1 - p) * f / (2 * (1 - p) * f + errors))
        printed = table.printed(row.method, "dmimage/Overall/f1")
        ranges = [(min(values), max(values)) for values in (shares, as_real, as_fake)]
        found.append(Mixture(row.method, *ranges, printed))
    return found

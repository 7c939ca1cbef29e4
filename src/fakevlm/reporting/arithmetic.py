"""The paper's arithmetic done again: which printed numbers follow from other printed numbers.

A printed number is rounded: it stands for an interval of half a unit in its last place either way.
A claim *follows* if the interval of what is recomputed meets the interval of what is printed.
All numbers here are in percent where they are shares.
"""

from dataclasses import dataclass
from itertools import product

from fakevlm.reporting.averages import MANIPULATIONS
from fakevlm.reporting.published import Published

SLACK = 1e-9  # 84.3 is not exact in binary


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
        return self.low - self.half - SLACK <= self.printed <= self.high + self.half + SLACK

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Mixture:
    """A row of Table 3: its share of real images by the overall accuracy, and which F1 its overall F1 is.

    Attributes:
        method: the row.
        share: lowest and highest share of real images that gives the printed overall accuracy.
        f1_real, f1_fake: F1 with that share and each class as the positive one, as ranges in percent.
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
        ranges = {"real": self.f1_real, "fake": self.f1_fake}
        fits = [
            c for c, (low, high) in ranges.items() if Check("", "", self.printed, low, high, 0.05).follows
        ]
        return fits[0] if len(fits) == 1 else "either" if fits else "neither"


def single_class_f1(accuracy: float) -> float:
    """Return F1 on images of one class only, where precision is 1: 2a/(1+a)."""
    return 2 * accuracy / (1 + accuracy)


def _difference(published: Published, claim: str, columns: list[str], other: str) -> Check:
    """A claimed improvement of FakeVLM over `other`, and the mean difference in `columns` (table:column)."""
    printed = published.claim(claim)
    cells = [published.column(*column.split(":")) for column in columns]
    mean = sum(100 * (cell["FakeVLM"] - cell[other]) for cell in cells) / len(cells)
    return Check(f"Section {printed.section}", printed.text, printed.value, mean - 0.1, mean + 0.1, 0.05)


def _counted(published: Published) -> list[Check]:
    """Numbers in prose, and F1 of the released weights' answers."""
    release = published.release.frame()
    open_part = release[~release.category.isin(["satellite", "doc"])].groupby("label").n.sum()
    ratio = float(open_part[0] / open_part[1])
    answers = published.release.fakeclue_answers
    hits, errors = answers["real_as_real"], answers["fake_as_real"] + answers["real_as_fake"]
    f1_real = 2 * hits / (2 * hits + errors)
    patches = (published.training["image_size"].value / published.training["patch_size"].value) ** 2
    prompts, claimed = published.claim("prompts").value, published.claim("patches").value
    f1 = published.column("table2", "fakeclue/all/f1")["FakeVLM"]
    rows = [
        ("Section 3.2", "fakes to a real in the open-source part, counted in the release", 1.0, ratio, 0.05),
        ("Section 3.2", "label prompts: seven categories times two labels", prompts, 14, 0.5),
        ("Section 4.2", "patches an image: (image size / patch size)²", claimed, patches, 0.5),
        (
            "Table 2",
            "FakeVLM's F1 on FakeClue as F1(real) of the released weights' answers",
            f1,
            f1_real,
            5e-4,
        ),
    ]
    return [Check(where, what, printed, value, value, half) for where, what, printed, value, half in rows]


def checks(published: Published) -> list[Check]:
    """Return every claim of the paper that can be recomputed from its other numbers, in the paper's order."""
    rows = _counted(published)
    for metric in ("acc", "f1"):
        columns = [f"table2:{benchmark}/all/{metric}" for benchmark in ("fakeclue", "loki")]
        rows.append(_difference(published, f"improvement-{metric}", columns, "Qwen2-VL-72B"))
    table3 = published.table("table3")
    for row in table3.rows:
        for subset in ("Real", "Fake"):
            accuracy, printed = (table3.printed(row.method, f"dmimage/{subset}/{m}") for m in ("acc", "f1"))
            low, high = (100 * single_class_f1((accuracy + d) / 100) for d in (-0.05, 0.05))
            what = f"{row.method}, {subset}: F1 = 2a/(1+a) of its accuracy"
            rows.append(Check("Table 3", what, printed, low, high, 0.05))
    for metric in ("acc", "f1", "rouge_l"):
        claim = f"common-df-{metric.split('_')[0]}"
        rows.append(_difference(published, claim, [f"table4:ddvqa/all/{metric}"], "Common-DF-TI"))
    table5 = published.table("table5")
    for row in table5.rows:
        mean = sum(table5.printed(row.method, f"ffpp/{name}/auc") for name in MANIPULATIONS) / 4
        printed = table5.printed(row.method, "ffpp/Average/auc")
        what = f"{row.method}: average of the four manipulations"
        rows.append(Check("Table 5", what, printed, mean - 0.05, mean + 0.05, 0.05))
    for metric in ("f1", "rouge_l"):
        other = published.column("table2", f"loki/all/{metric}")["FakeVLM"]
        printed = published.column("table6", f"loki/all/{metric}")["LLaVA + Explanatory Text"]
        what = f"LOKI {metric} of the same model in Table 2"
        rows.append(Check("Table 6", what, printed, other, other, 0.0005))
    return rows


def mixtures(published: Published) -> list[Mixture]:
    """Return for each row of Table 3 the share of real images behind its overall accuracy, and which F1 fits.

    With recall r of real images, recall f of fakes and a share p of real images, accuracy is pr + (1−p)f,
    so p = (acc − f)/(r − f); both F1 values follow. Ranges are over the rounding of the three accuracies.
    """
    columns = {
        subset: published.column("table3", f"dmimage/{subset}/acc") for subset in ("Real", "Fake", "Overall")
    }
    rows = []
    for method in columns["Overall"]:
        real, fake, overall = (column[method] for column in columns.values())
        shares, as_real, as_fake = [], [], []
        for dr, df, da in product((-0.0005, 0, 0.0005), repeat=3):
            r, f = real + dr, fake + df
            p = min(1.0, max(0.0, (overall + da - f) / (r - f)))
            errors = p * (1 - r) + (1 - p) * (1 - f)
            shares.append(p)
            as_real.append(100 * 2 * p * r / (2 * p * r + errors))
            as_fake.append(100 * 2 * (1 - p) * f / (2 * (1 - p) * f + errors))
        ranges = [(min(values), max(values)) for values in (shares, as_real, as_fake)]
        rows.append(Mixture(method, *ranges, published.table("table3").printed(method, "dmimage/Overall/f1")))
    return rows

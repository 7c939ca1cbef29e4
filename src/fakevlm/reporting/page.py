"""Writes `figures/`: every table and figure, and `report.html`, one page that needs no other file."""

import base64
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup, escape
from PIL import Image

from fakevlm import paths
from fakevlm.data.csv_files import write_csv
from fakevlm.data.records import encode
from fakevlm.progress import track
from fakevlm.reporting import style
from fakevlm.reporting.arithmetic import checks, mixtures
from fakevlm.reporting.case_figures import mark, resized
from fakevlm.reporting.conclusions import VERDICTS, Conclusion, order
from fakevlm.reporting.figures import Figure
from fakevlm.reporting.inputs import SPLITS, Inputs
from fakevlm.reporting.published import Published
from fakevlm.reporting.tables import ReportTable, annotators, markdown
from fakevlm.reporting.texts import METHOD, TEMPLATES, environment, fill, layout, main_numbers, sentences

SUFFIXES = (".csv", ".md", ".png", ".svg", ".html")
SMALLEST, LARGEST = 288, 640  # pixels of an inlined photograph's longer side; browsers differ in enlarging


def write_report(
    inputs: Inputs,
    published: Published,
    tables: list[ReportTable],
    figures: list[Figure],
    conclusions: list[Conclusion],
) -> Path:
    """Write tables (.csv, .md), figures (.png, .svg) and report.html into figures/; return the page.

    metrics.json joins those of the stages, for `dvc metrics`. What an earlier run drew is removed first, and
    anything else in the folder is left.
    """
    params, folder = inputs.params, paths.figures()
    verdicts = Counter(conclusion.verdict for conclusion in conclusions)
    jinja = environment(autoescape=True)
    jinja.filters |= {f.__name__: f for f in (data_uri, photograph, code, interval)}
    text = jinja.get_template("report.html.j2").render(
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        mark=mark,
        profile=params.profile,
        seed=params.seed,
        parameters=yaml.safe_dump(params.model_dump(), sort_keys=False, allow_unicode=True),
        paper=published.paper,
        tables=tables,
        tiles=_tiles(tables),
        figures=figures,
        left_out=list(inputs.left_out.values()),
        conclusions=conclusions,
        tally={verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]},
        orders={shown: order(inputs.study, name) for name, shown in layout()["names"]["benchmarks"].items()},
        never_named=_never_named(inputs.scores),
        contradictions=published.contradictions(),
        checks=checks(published),
        mixtures=mixtures(published),
        **_what_ran(inputs, published),
    )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / ".ipynb_checkpoints", ignore_errors=True)
    for file in [file for file in folder.iterdir() if file.suffix in SUFFIXES]:
        file.unlink()
    for table in tables:
        write_csv(table.tidy, folder / f"{table.name}.csv")
        (folder / f"{table.name}.md").write_text(markdown(table, params.profile), encoding="utf-8")
    for figure in track(figures, "figures", unit="figure"):
        style.save(figure.picture, folder, figure.name, figure.dpi)
    files = {file.parent: file.read_text("utf-8") for file in sorted(paths.artifacts().rglob("metrics.json"))}
    metrics = {str(stage.relative_to(paths.artifacts())): json.loads(files[stage]) for stage in files}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    page = folder / "report.html"
    page.write_text(text, encoding="utf-8")
    return page


def _what_ran(inputs: Inputs, published: Published) -> dict[str, Any]:
    """Return `remarks`, `settings` and `counts` of report.yaml with their slots filled."""
    facts = {
        "params": inputs.params,
        "tune": inputs.params.training,
        "inputs": inputs,
        "paper": published.training,
        "annotators": [annotator.name for annotator in inputs.params.annotate.annotators],
        "backends": annotators(inputs),
        "sizes": {split: int((inputs.fakeclue.split == split).sum()) for split in SPLITS},
        "released": published.released().groupby("split").n.sum().to_dict(),
    }
    remarks = sentences(layout()["remarks"], **facts)
    tables = {key: layout()[key] for key in ("settings", "counts")}
    filled = {key: [[fill(text, **facts) for text in row] for row in rows] for key, rows in tables.items()}
    return {"remarks": remarks, **filled}


def _tiles(tables: list[ReportTable]) -> list[dict[str, str]]:
    """Return FakeVLM's main numbers (name, run, paper), as far as this run measured them."""
    rows = main_numbers({table.name: table.tidy.to_dict("records") for table in tables})
    numbers = {f"{row['benchmark']}/{row['metric']}": row for row in rows if row["method"] == METHOD}
    tiles = [numbers[key] | {"name": name} for key, name in layout()["tiles"].items()]
    return [tile for tile in tiles if tile["run"] != "–"]


def _never_named(scores: pd.DataFrame) -> list[str]:
    """Return the kinds of artifact in FakeClue's test split that no explanation of FakeVLM names."""
    part = scores[(scores.benchmark == "fakeclue") & (scores.method == METHOD)]
    part = part[(part.metric == "clue_recall") & part.subset.str.startswith("kind=") & (part.value == 0)]
    return sorted(part.subset.str.removeprefix("kind=").str.replace("_", " "))


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def photograph(image: Image.Image) -> str:
    """Return an image as a data URI of a JPEG."""
    image = resized(image, min(max(*image.size, SMALLEST), LARGEST))
    return data_uri(encode(image, "JPEG", quality=90, subsampling=0), "jpeg")


def code(text: str) -> Markup:
    """Return a note with its `back-quoted` pieces as code and *starred* ones emphasised."""
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*([^*]*)\*", r"<em>\1</em>", text))


def interval(cell: str) -> Markup:
    """Return a cell with its interval in small print on a line of its own."""
    return Markup(re.sub(r" (\[.*)", r"<br><small>\1</small>", str(escape(cell))))

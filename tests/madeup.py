"""Small made-up artifacts in the layout that the stages write. No number here means anything."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fakevlm.config.params import Params
from fakevlm.data.clues import KINDS, SEEN_KINDS
from fakevlm.data.ground_truth import Artifact, GroundTruth, write_ground_truth
from fakevlm.data.records import CATEGORIES, Record, write_records
from fakevlm.reporting.conclusions import draw_conclusions
from fakevlm.reporting.figures import Figure, draw_figures
from fakevlm.reporting.inputs import load_inputs
from fakevlm.reporting.page import write_report
from fakevlm.reporting.published import load_published
from fakevlm.reporting.tables import ReportTable, build_tables
from miniworld.world import shoot
from smallcorpora import put

ROOT = Path(__file__).resolve().parents[1]
VALUES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
SKILL: dict[str, float] = VALUES["skill"]
GENERATORS: dict[str, list[str]] = VALUES["generators"]
METHODS = tuple(SKILL)
WRITERS = ("FakeVLM", "LLaVA (untuned)")
Truth = dict[str, GroundTruth]


def answer(label: int, kinds: list[str]) -> str:
    if label == 1:
        return "This is a real image. Texture: natural fine grain; Lighting: the colours are balanced."
    clues = [f"{KINDS[k].family.title()}: {KINDS[k].phrases[0].format(s='the subject')}" for k in kinds]
    return f"This is a fake image. {'; '.join(clues) or 'No visible artifact explains it'}."


def _records(name: str, n: int, rng: np.random.Generator, ground_truths: Truth) -> list[Record]:
    """A benchmark's records; their ground truth is added to `ground_truths`."""
    records, generators = [], GENERATORS[name]
    questions = ("Does the image look real/fake?", "Do the eyes of the person look real/fake?")
    for i in range(n):
        label = int(i % 5 < 2)
        path = f"{name}/{'real' if label else 'fake'}/{i:04d}.jpg"
        category = CATEGORIES[i % 7] if name in ("fakeclue", "loki", "dmimage") else "deepfake"
        clear = label or i % 9 == 0  # without artifacts
        kinds = [] if clear else list(dict.fromkeys(SEEN_KINDS[k % len(SEEN_KINDS)] for k in (i, 3 * i + 1)))
        artifacts = [Artifact(kind, (0.2, 0.25, 0.6, 0.7), 0.9) for kind in kinds]
        ground_truths[path] = GroundTruth(path, label, category, artifacts)
        record = Record(path, shoot("object", rng).jpeg, label, name, path, category, width=96, height=96)
        if not label:
            record.generator = generators[(i // 5) % len(generators)] or None
        if name == "ddvqa":
            record.id, record.question = f"{path}#{i % 6}", questions[i % 2]
        record.references = [answer(label, kinds)]
        records.append(record)
    return records


def _score(method: str, benchmark: str, subset: str, metric: str, value: float, n: int = 100) -> dict:
    row = {"method": method, "benchmark": benchmark, "subset": subset, "metric": metric, "value": value}
    return row | {"ci_low": max(0.0, value - 0.04), "ci_high": min(1.0, value + 0.04), "n": n}


def scores(benchmark: str, rng: np.random.Generator) -> pd.DataFrame:
    """A benchmark's scores.csv: every metric for every method and subset."""
    subsets = ["all", "label=real", "label=fake"]
    subsets += [f"category={c}" for c in (CATEGORIES if benchmark != "ffpp" else ("deepfake",))]
    subsets += [f"generator={g}" for g in GENERATORS[benchmark] if g]
    texts = {"rouge_l": 0.5, "css": 0.8, "clue_precision": 0.7, "clue_recall": 0.6}
    texts |= {"acc_forced": 0.9, "f1_real_forced": 0.9, "unparsed": 0.01}
    rows = []
    for method in METHODS:
        for subset in subsets:
            skill = float(np.clip(SKILL[method] + rng.uniform(-0.05, 0.05), 0, 0.99))
            values = dict.fromkeys(("acc", "f1_real", "f1_fake", "f1_macro", "auc"), round(skill, 4))
            if method in WRITERS:
                values |= {metric: value * SKILL[method] for metric, value in texts.items()}
            rows += [_score(method, benchmark, subset, metric, value) for metric, value in values.items()]
    rows += [
        _score("FakeVLM", benchmark, f"kind={kind}", metric, round(float(rng.uniform(0.2, 0.95)), 4), 20)
        for kind in SEEN_KINDS
        for metric in ("clue_recall", "clue_precision")
    ]
    rows[-2]["value"] = rows[-2]["ci_low"] = 0.0  # one kind is never named
    return pd.DataFrame(rows)


def _predictions(records: list[Record], ground_truths: Truth, rng: np.random.Generator) -> pd.DataFrame:
    columns = ("id", "group", "label", "category", "generator", "question")
    rows = []
    for method in METHODS:
        for record in records:
            judged = record.label if rng.random() < SKILL[method] else 1 - record.label
            kinds = [a.kind for a in ground_truths[record.path].artifacts] or ["halo"]
            text = answer(judged, kinds[:1]) if method in WRITERS else ""
            verdict = ("fake", "real")[judged]
            if method == "LLaVA (untuned)" and rng.random() < 0.5:
                text = "A picture with a <b>round</b> thing in the middle; it costs $5 or $6."
                verdict = "unparsed"
            p_fake = float(np.clip(0.5 + (0.3 if judged == 0 else -0.3) + rng.normal(0, 0.1), 0, 1))
            row = {"method": method} | {column: getattr(record, column) for column in columns}
            row |= {"text": text, "p_fake": p_fake, "verdict": verdict, "reference": record.references[0]}
            rows.append(row)
    return pd.DataFrame(rows).sort_values(["method", "id"], kind="stable", ignore_index=True)


def study() -> pd.DataFrame:
    rows = [
        _score(method, benchmark, "all", metric, value - (0.1 if benchmark == "loki" else 0.0), 300)
        for method, value in VALUES["study"].items()
        for benchmark in ("fakeclue", "loki")
        for metric in ("acc", "f1_real", "auc")
    ]
    return pd.DataFrame(rows)


def log(start: float, rng: np.random.Generator) -> pd.DataFrame:
    """A training's log.csv; its loss falls from `start`."""
    steps = np.arange(1, 201)
    rate = 5e-4 * np.minimum(steps / 6, 0.5 * (1 + np.cos(np.pi * steps / 200)))
    loss = (start * np.exp(-steps / 60) + 0.2 + rng.normal(0, 0.03, len(steps))).round(4)
    return pd.DataFrame({"step": steps, "epoch": steps / 50, "loss": loss, "learning_rate": rate})


def robustness() -> pd.DataFrame:
    """The robustness study's scores.csv."""
    strengths = VALUES["strengths"].items()
    subsets = [("none", 0)] + [(f"{k}={s}", i + 1) for k, row in strengths for i, s in enumerate(row)]
    rows = [
        _score(method, "fakeclue", subset, metric, SKILL[method] - 0.06 * harm, 240)
        for method in ("FakeVLM", "CNNSpot", "LLaVA + Linear Head")
        for subset, harm in subsets
        for metric in ("acc", "auc")
    ]
    return pd.DataFrame(rows)


def make(root: Path, images: int = 84) -> Path:
    """Write params.yaml and, under `root`/artifacts, all that the report reads; return that folder."""
    rng = np.random.default_rng(6)
    artifacts = put(root / "artifacts", VALUES["files"])
    put(root, {"params.yaml": (ROOT / "params.yaml").read_bytes()})
    ground_truths: Truth = {}
    records = {name: _records(name, images, rng, ground_truths) for name in GENERATORS}
    for name in GENERATORS.keys() - {"fakeclue"}:
        write_records(records[name], artifacts / "collect/benchmarks" / name)
    write_ground_truth(ground_truths.values(), artifacts / "collect/ground_truth.jsonl")
    fakeclue, third = records["fakeclue"], images // 3
    parts = {"train": fakeclue[:third], "val": fakeclue[third : third + 7], "test": fakeclue[third + 7 :]}
    for split, part in parts.items():
        write_records(part, artifacts / "annotate/fakeclue" / split)
    names = ("DeepSeek-VL2 (scripted)", "InternVL2 (scripted)", "Qwen2-VL (scripted)")
    rows = [(r.id, name, "ok", f"{name} notes: {r.references[0]}") for r in parts["train"] for name in names]
    candidates = pd.DataFrame(rows, columns=["id", "annotator", "outcome", "text"])
    candidates.to_parquet(artifacts / "annotate/candidates.parquet")
    frames = {"study/scores": study(), "robustness/scores": robustness()}
    frames |= {"finetune/explanation/log": log(4.0, rng), "finetune/head/log": log(0.7, rng)}
    for name, part in (records | {"fakeclue": parts["test"]}).items():
        (artifacts / "evaluate" / name).mkdir(parents=True)
        _predictions(part, ground_truths, rng).to_parquet(artifacts / f"evaluate/{name}/predictions.parquet")
        frames[f"evaluate/{name}/scores"] = scores(name, rng)
    put(artifacts, {f"{name}.csv": frame.to_csv(index=False) for name, frame in frames.items()})
    return artifacts


def report(params: Params) -> tuple[list[ReportTable], list[Figure]]:
    """Draw the report as notebook 08 does; return its tables and figures."""
    inputs, published = load_inputs(params), load_published()
    tables, figures = build_tables(inputs, published), draw_figures(inputs, published)
    write_report(inputs, published, tables, figures, draw_conclusions(inputs, published))
    return tables, figures

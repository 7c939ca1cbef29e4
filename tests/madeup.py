"""Small made-up artifacts in the layout that the stages write. No number here means anything."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from fakevlm.data.clues import KINDS, SEEN_KINDS, SUBJECTS
from fakevlm.data.ground_truth import Artifact, GroundTruth, write_ground_truth
from fakevlm.data.records import CATEGORIES, Record, write_records

METHODS = ("CNNSpot", "FakeVLM", "Frequency", "LLaVA (untuned)", "LLaVA + Linear Head", "UnivFD")
SKILL = {
    "CNNSpot": 0.8,
    "FakeVLM": 0.9,
    "Frequency": 0.65,
    "LLaVA (untuned)": 0.5,
    "LLaVA + Linear Head": 0.86,
    "UnivFD": 0.75,
}
WRITERS = ("FakeVLM", "LLaVA (untuned)")
GENERATORS = {
    "ffpp": ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"),
    "dmimage": ("progan", "glide"),
    "loki": ("",),
    "ddvqa": ("Deepfakes", "FaceSwap"),
    "fakeclue": ("adm", "biggan"),
}


def picture(rng: np.random.Generator, size: int = 96) -> bytes:
    """A JPEG of a disc on a gradient."""
    base = np.linspace(rng.integers(40, 120), rng.integers(140, 240), size)[:, None, None]
    pixels = np.broadcast_to(base, (size, size, 3)) * rng.uniform(0.6, 1.0, 3) + rng.normal(
        0, 4, (size, size, 3)
    )
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    x, y = rng.integers(20, 60, 2)
    ImageDraw.Draw(image).ellipse((x, y, x + 30, y + 24), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def answer(label: int, category: str, kinds: list[str], rng: np.random.Generator) -> str:
    subject = SUBJECTS.get(category, "the image")
    if label == 1:
        words = f"Texture: natural fine grain lies over {subject}"
        return f"This is a real image. {words}; Lighting: the colours of {subject} are balanced."
    if not kinds:
        return "This is a fake image. No visible artifact explains it."
    parts = [KINDS[k].phrases[rng.integers(len(KINDS[k].phrases))].format(s=subject) for k in kinds]
    return (
        "This is a fake image. "
        + "; ".join(f"{KINDS[k].family.title()}: {p}" for k, p in zip(kinds, parts, strict=True))
        + "."
    )


def _records(
    benchmark: str, n: int, rng: np.random.Generator, ground_truth: list[GroundTruth]
) -> list[Record]:
    records = []
    for i in range(n):
        label = int(i % 5 < 2)
        category = CATEGORIES[i % 7] if benchmark in ("fakeclue", "loki", "dmimage") else "deepfake"
        names = GENERATORS[benchmark]
        generator = None if label else (names[(i // 5) % len(names)] or None)
        path = f"{benchmark}/{'real' if label else 'fake'}/{i:04d}.jpg"
        kinds = (
            []
            if label or i % 9 == 0
            else [SEEN_KINDS[i % len(SEEN_KINDS)], SEEN_KINDS[(3 * i + 1) % len(SEEN_KINDS)]]
        )
        kinds = list(dict.fromkeys(kinds))
        ground_truth.append(
            GroundTruth(path, label, category, [Artifact(k, (0.2, 0.25, 0.6, 0.7), 0.9) for k in kinds], [])
        )
        question = (
            ("Does the image look real/fake?", "Do the eyes of the person look real/fake?")[i % 2]
            if benchmark == "ddvqa"
            else None
        )
        records.append(
            Record(
                id=f"{path}#{i % 6}" if benchmark == "ddvqa" else path,
                image=picture(rng),
                label=label,
                source=benchmark,
                item=path,
                category=category,
                generator=generator,
                width=96,
                height=96,
                question=question,
                references=[answer(label, category, kinds, rng)],
            )
        )
    return records


def _score(method: str, benchmark: str, subset: str, metric: str, value: float | None, n: int = 100) -> dict:
    ends = (None, None) if value is None else (max(0.0, value - 0.04), min(1.0, value + 0.04))
    return {
        "method": method,
        "benchmark": benchmark,
        "subset": subset,
        "metric": metric,
        "value": value,
        "ci_low": ends[0],
        "ci_high": ends[1],
        "n": n,
    }


def scores(benchmark: str, rng: np.random.Generator) -> pd.DataFrame:
    """A benchmark's scores.csv: every metric for every method and subset."""
    subsets = ["all", "label=real", "label=fake"]
    subsets += [f"category={c}" for c in (CATEGORIES if benchmark != "ffpp" else ("deepfake",))]
    subsets += [f"generator={g}" for g in GENERATORS[benchmark] if g]
    rows = []
    for method in METHODS:
        for subset in subsets:
            skill = float(np.clip(SKILL[method] + rng.uniform(-0.05, 0.05), 0, 0.99))
            for metric in ("acc", "f1_real", "f1_fake", "f1_macro", "auc"):
                rows.append(_score(method, benchmark, subset, metric, round(skill, 4)))
            writes = method in WRITERS
            for metric, value in (
                ("rouge_l", 0.5),
                ("css", 0.8),
                ("clue_precision", 0.7),
                ("clue_recall", 0.6),
                ("acc_forced", 0.9),
                ("f1_real_forced", 0.9),
                ("unparsed", 0.01),
            ):
                rows.append(
                    _score(method, benchmark, subset, metric, value * SKILL[method] if writes else None)
                )
    rows += [
        _score("FakeVLM", benchmark, f"kind={kind}", metric, round(float(rng.uniform(0.2, 0.95)), 4), 20)
        for kind in SEEN_KINDS
        for metric in ("clue_recall", "clue_precision")
    ]
    rows[-2]["value"] = rows[-2]["ci_low"] = 0.0  # one kind is never named
    return pd.DataFrame(rows).dropna(subset=["value"])


def _predictions(
    records: list[Record], ground_truth: dict[str, GroundTruth], rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for method in METHODS:
        for record in records:
            says = record.label if rng.random() < SKILL[method] else 1 - record.label
            kinds = [a.kind for a in ground_truth[record.path].artifacts] or ["halo"]
            text = answer(says, record.category or "object", kinds[:1], rng) if method in WRITERS else ""
            verdict = ("fake", "real")[says]
            if method == "LLaVA (untuned)" and rng.random() < 0.2:
                text, verdict = (
                    "A picture with a <b>round</b> thing in the middle; it costs $5 or $6.",
                    "unparsed",
                )
            rows.append(
                {
                    "method": method,
                    "id": record.id,
                    "item": record.item,
                    "label": record.label,
                    "category": record.category,
                    "generator": record.generator,
                    "question": record.question,
                    "text": text,
                    "p_fake": float(np.clip(0.5 + (0.3 if says == 0 else -0.3) + rng.normal(0, 0.1), 0, 1)),
                    "verdict": verdict,
                    "reference": record.references[0],
                }
            )
    return pd.DataFrame(rows).sort_values(["method", "id"], kind="stable", ignore_index=True)


def _csv(frame: pd.DataFrame, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(file, index=False)


def _collect(root: Path, records: dict[str, list[Record]], ground_truth: list[GroundTruth]) -> None:
    sources = [
        (source, label, generator, n)
        for source, label, generator, n in (
            ("genimage", 0, "adm", 120),
            ("genimage", 0, "biggan", 110),
            ("genimage", 1, None, 230),
            ("ff++", 0, "Deepfakes", 80),
            ("ff++", 0, "FaceSwap", 80),
            ("ff++", 1, None, 60),
            ("chameleon", 0, None, 50),
            ("chameleon", 1, None, 50),
            ("satellite", 0, "gan", 70),
            ("satellite", 1, None, 70),
            ("doc", 0, "layout", 90),
            ("doc", 1, None, 40),
        )
    ]
    _csv(pd.DataFrame(sources, columns=["source", "label", "generator", "n"]), root / "collect/sources.csv")
    _csv(
        pd.DataFrame([("genimage", "a.png", "truncated")], columns=["corpus", "path", "reason"]),
        root / "collect/quarantine.csv",
    )
    _csv(pd.DataFrame(columns=["sha256", "kept", "dropped"]), root / "collect/duplicates.csv")
    _csv(
        pd.DataFrame(columns=["benchmark", "path", "train_path", "kind", "distance"]),
        root / "collect/leakage.csv",
    )
    for name, part in records.items():
        if name != "fakeclue":
            write_records(part, root / "collect/benchmarks" / name)
    write_ground_truth(ground_truth, root / "collect/truth.jsonl")


def _annotate(root: Path, fakeclue: list[Record], rng: np.random.Generator) -> None:
    thirds = len(fakeclue) // 3
    parts = {"train": fakeclue[:thirds], "val": fakeclue[thirds : thirds + 7], "test": fakeclue[thirds + 7 :]}
    for split, part in parts.items():
        write_records(part, root / "annotate/fakeclue" / split)
    names = ("DeepSeek-VL2 (scripted)", "InternVL2 (scripted)", "Qwen2-VL (scripted)")
    rows = [
        {"id": r.id, "annotator": name, "outcome": "ok", "text": f"{name} notes: {r.references[0]}"}
        for r in parts["train"]
        for name in names
    ]
    pd.DataFrame(rows).to_parquet(root / "annotate/candidates.parquet")
    quality = [(name, 0.6, 0.5, 0.55, 90) for name in names] + [("aggregate", 0.8, 0.7, 0.75, 90)]
    _csv(
        pd.DataFrame(quality, columns=["annotator", "precision", "recall", "f1", "n"]),
        root / "annotate/clue_quality.csv",
    )
    pairs = [
        (names[0], names[1], 0.4, 0.5, 90),
        (names[0], names[2], 0.5, 0.55, 90),
        (names[1], names[2], 0.45, 0.5, 90),
    ]
    _csv(
        pd.DataFrame(pairs, columns=["annotator_a", "annotator_b", "jaccard", "kappa", "n"]),
        root / "annotate/agreement.csv",
    )


def _categorize(root: Path) -> None:
    kinds = ("animal", "human", "object", "scene")
    rows = [(t, p, 40 if t == p else 3) for t in kinds for p in kinds]
    _csv(pd.DataFrame(rows, columns=["truth", "predicted", "n"]), root / "categorize/confusion.csv")
    (root / "categorize/metrics.json").write_text(json.dumps({"accuracy": 0.816}))


def _study(root: Path) -> None:
    values = {
        "Frozen QA": 0.5,
        "Linear probe (vision tower)": 0.74,
        "Linear probe (LMM last layer)": 0.7,
        "Direct real/fake QA": 0.81,
        "Explanatory VQA": 0.86,
    }
    rows = [
        _score(method, benchmark, "all", metric, value - (0.1 if benchmark == "loki" else 0.0), 300)
        for method, value in values.items()
        for benchmark in ("fakeclue", "loki")
        for metric in ("acc", "f1_real", "auc")
    ]
    _csv(pd.DataFrame(rows), root / "study/scores.csv")


def _training(root: Path, rng: np.random.Generator) -> None:
    steps = np.arange(1, 201)
    for objective, start in (("explanation", 4.0), ("head", 0.7)):
        loss = start * np.exp(-steps / 60) + 0.2 + rng.normal(0, 0.03, len(steps))
        rate = 5e-4 * np.minimum(steps / 6, 0.5 * (1 + np.cos(np.pi * steps / 200)))
        frame = pd.DataFrame(
            {"step": steps, "epoch": steps / 50, "loss": loss.round(4), "learning_rate": rate}
        )
        _csv(frame, root / "finetune" / objective / "log.csv")
    model = root / "finetune/explanation/model"
    model.mkdir()
    save_file(
        {"a": np.zeros((1000, 300), np.float32), "b": np.zeros(7, np.float32)}, model / "model.safetensors"
    )
    config = {"vision_config": {"image_size": 96, "patch_size": 8}, "text_config": {"hidden_size": 128}}
    (model / "config.json").write_text(json.dumps(config))


def robustness() -> pd.DataFrame:
    """The robustness study's scores.csv."""
    strengths = {
        "jpeg": (90, 70, 50),
        "resize": (0.75, 0.5),
        "blur": (0.5, 1.0),
        "noise": (4, 8, 16),
        "crop": (0.9, 0.8),
    }
    subsets = [("none", 0)] + [(f"{k}={s}", i + 1) for k, row in strengths.items() for i, s in enumerate(row)]
    rows = [
        _score(method, "fakeclue", subset, metric, SKILL[method] - 0.06 * harm, 240)
        for method in ("FakeVLM", "CNNSpot", "LLaVA + Linear Head")
        for subset, harm in subsets
        for metric in ("acc", "auc")
    ]
    return pd.DataFrame(rows)


def make(root: Path, seed: int = 3, images: int = 84) -> Path:
    """Writes every artifact the report reads under `root`/artifacts; returns that folder."""
    rng = np.random.default_rng(seed)
    artifacts = root / "artifacts"
    ground_truth: list[GroundTruth] = []
    records = {
        name: _records(name, images, rng, ground_truth)
        for name in ("fakeclue", "loki", "dmimage", "ddvqa", "ffpp")
    }
    by_path = {truth.path: truth for truth in ground_truth}
    _collect(artifacts, records, ground_truth)
    _categorize(artifacts)
    _annotate(artifacts, records["fakeclue"], rng)
    _study(artifacts)
    _training(artifacts, rng)
    _csv(robustness(), artifacts / "robustness/scores.csv")
    for name, part in records.items():
        asked = part if name != "fakeclue" else part[len(part) // 3 + 7 :]
        folder = artifacts / "evaluate" / name
        folder.mkdir(parents=True)
        _predictions(asked, by_path, rng).to_parquet(folder / "predictions.parquet")
        _csv(scores(name, rng), folder / "scores.csv")
    return artifacts


def params(root: Path) -> None:
    """Copies the checkout's params.yaml under `root`, so that FAKEVLM_ROOT may point there."""
    root.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).resolve().parents[1] / "params.yaml"
    (root / "params.yaml").write_bytes(source.read_bytes())

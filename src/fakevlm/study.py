"""Four ways to get a verdict out of a multimodal model (paper section 4.1, Fig. 3), on FakeClue's test split and on LOKI.

1. *Frozen QA*: the untuned base is asked and answers in words.
2. *Linear probe*: a logistic regression on the frozen base's features, of the vision tower and of the LMM's last layer.
3. *Direct real/fake QA*: the base tuned to answer "Fake" or "Real".
4. *Explanatory VQA*: the base tuned to answer with verdict and artifacts.

The two tunings have equal budgets: the same images in the same order, batch size, learning rate and number of steps. What is
chosen (a probe's regularisation and pooling) is chosen on the validation split.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fakevlm import paths, progress
from fakevlm.evaluation import metrics
from fakevlm.evaluation.metrics import FAKE, REAL
from fakevlm.evaluation.prediction import fingerprint, predict
from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import DTYPES, load_model, load_processor, locate
from fakevlm.params import Params
from fakevlm.records import Record
from fakevlm.shards import Records, columns_of
from fakevlm.training.data import draw
from fakevlm.training.launch import finetune

FROZEN, VISION_PROBE, LMM_PROBE = "Frozen QA", "Linear probe (vision tower)", "Linear probe (LMM last layer)"
TUNED = {"label": "Direct real/fake QA", "explanation": "Explanatory VQA"}
METHODS = (FROZEN, VISION_PROBE, LMM_PROBE, *TUNED.values())
# Features that each probe may use; the better one on the validation split counts.
POOLINGS = {VISION_PROBE: ("vision",), LMM_PROBE: ("last", "mean")}
STRENGTHS = tuple(10.0**n for n in range(-5, 3))  # of the probes' inverse regularisation C
PREDICTION_COLUMNS = ["method", "benchmark", "id", "item", "label", "category", "text", "p_fake", "verdict"]
SCORE_COLUMNS = ["method", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]

Features = dict[str, np.ndarray]


@torch.inference_mode()
def features(
    model: torch.nn.Module,
    processor: object,
    records: Sequence[Record],
    batch_size: int,
    desc: str = "features",
) -> Features:
    """What a frozen LLaVA makes of images, asked the standard question.

    Args:
        model: a `LlavaForConditionalGeneration`.
        processor: its processor.
        records: n of them.
        batch_size: images at a time.
        desc: of the progress bar.

    Returns:
        float32 arrays: `vision` (n, d_vision), the patches that the projector reads, averaged; `last` (n, d_text), the
        language model's last hidden state at the prompt's last token; `mean` (n, d_text), that state averaged over the prompt.
    """
    collator = Collator(processor, for_generation=True)
    found: dict[str, list[np.ndarray]] = {"vision": [], "last": [], "mean": []}
    inner = model.model
    with progress.bar(len(records), desc) as bar:
        for start in range(0, len(records), batch_size):
            part = records[start : start + batch_size]
            batch = {k: v.to(model.device) for k, v in collator([Example(r.pil()) for r in part]).items()}
            seen = inner.get_image_features(
                pixel_values=batch["pixel_values"].to(model.dtype), return_dict=True
            )
            patches = seen.hidden_states[model.config.vision_feature_layer]
            if model.config.vision_feature_select_strategy == "default":
                patches = patches[:, 1:]  # without the class token
            # One question for all, so nothing is padded and no mask is needed.
            states = inner(
                input_ids=batch["input_ids"], mm_encoder_outputs={"image": seen}, use_cache=False
            ).last_hidden_state
            pooled = {"vision": patches.mean(dim=1), "last": states[:, -1], "mean": states.mean(dim=1)}
            for name, rows in pooled.items():
                found[name].append(rows.float().cpu().numpy())
            bar.update(len(part))
    return {name: np.concatenate(rows) for name, rows in found.items()}


def labels(records: Sequence[Record]) -> np.ndarray:
    """Labels (n,): 0 fake, 1 real."""
    return columns_of(records, ["label"])["label"].to_numpy(int)


def probe(
    train: Features, train_labels: np.ndarray, val: Features, val_labels: np.ndarray, poolings: Sequence[str]
) -> tuple[object, dict[str, object]]:
    """The logistic regression, over poolings and C, that is right most often on the validation split.

    Returns:
        The classifier (standardises, then regresses) and what was chosen: pooling, C, val_acc. Among equals the first
        pooling and the strongest regularisation win.
    """
    best: tuple[float, object, dict[str, object]] = (-1.0, None, {})
    for pooling in poolings:
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
            model.fit(train[pooling], train_labels)
            right = float((model.predict(val[pooling]) == val_labels).mean())
            if right > best[0]:
                best = right, model, {"pooling": pooling, "C": strength, "val_acc": right}
    return best[1], best[2]


def _answers(records: Sequence[Record], p_fake: np.ndarray) -> pd.DataFrame:
    p_fake = np.round(p_fake.astype(float), 6)
    return pd.DataFrame(
        {
            "id": columns_of(records, ["id"])["id"],
            "text": None,
            "p_fake": p_fake,
            "verdict": np.where(p_fake >= 0.5, "fake", "real"),
        }
    )


def _probes(
    params: Params, train: Sequence[Record], val: Sequence[Record], tests: dict[str, Sequence[Record]]
) -> tuple[dict[str, dict[str, pd.DataFrame]], pd.DataFrame]:
    """Both probes' answers by method and benchmark, and what was chosen for them."""
    model = load_model(params.base, dtype=DTYPES[params.evaluate.precision])
    processor = load_processor(params.base)
    parts = {"train": draw(train, params.study.probe_images, params.seed), "val": val, **tests}
    made = {
        name: features(model, processor, records, params.evaluate.batch_size, f"features {name}")
        for name, records in parts.items()
    }
    answers, chosen = {}, []
    for method, poolings in POOLINGS.items():
        classifier, choice = probe(made["train"], labels(parts["train"]), made["val"], labels(val), poolings)
        chosen.append({"method": method, **choice, "images": len(parts["train"])})
        column = list(classifier.classes_).index(FAKE)
        answers[method] = {
            name: _answers(records, classifier.predict_proba(made[name][choice["pooling"]])[:, column])
            for name, records in tests.items()
        }
    return answers, pd.DataFrame(chosen)


def _asked(
    params: Params, name: str | Path, method: str, tests: dict[str, Sequence[Record]], journal: Path
) -> dict[str, pd.DataFrame]:
    """A model's answers in words, by benchmark; finished batches are kept in `journal` until all is done."""
    model = load_model(name, dtype=DTYPES[params.evaluate.precision])
    processor, place = load_processor(name), Path(locate(name))
    journal = journal / (fingerprint(place) if place.is_dir() else place.name)
    settings = {"batch_size": params.evaluate.batch_size, "max_new_tokens": params.evaluate.max_new_tokens}
    return {
        benchmark: predict(
            model, processor, records, journal=journal, desc=f"{method}, {benchmark}", **settings
        )
        for benchmark, records in tests.items()
    }


def _table(records: Sequence[Record], answered: pd.DataFrame, method: str, benchmark: str) -> pd.DataFrame:
    known = columns_of(records, ["item", "category"])
    told = {"method": method, "benchmark": benchmark, "label": labels(records)}
    return answered.assign(**told, **known)[PREDICTION_COLUMNS]


def score(predictions: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Detection metrics of each method on each benchmark, with 95 % bootstrap intervals over items.

    Subsets: `all`; `label=real`, `label=fake` and `category=…` with accuracy only.

    Args:
        predictions: as `run` makes them.
        draws: bootstrap draws.
        seed: of the draws; all methods are compared on the same ones.
    """
    rows = []
    for (benchmark, method), frame in predictions.groupby(["benchmark", "method"], sort=False):
        subsets = {"all": np.ones(len(frame), dtype=bool)}
        subsets |= {"label=real": frame["label"] == REAL, "label=fake": frame["label"] == FAKE}
        subsets |= {
            f"category={c}": frame["category"] == c for c in sorted(frame["category"].dropna().unique())
        }
        for subset, mask in subsets.items():
            part = frame[mask]
            if part.empty:
                continue
            truth, said = part["label"].to_numpy(), metrics.codes(part["verdict"].to_numpy())
            weights = metrics.draws(truth, pd.factorize(part["item"])[0], draws, seed)
            measured = {"acc": partial(metrics.accuracy, truth, said)}
            if subset == "all":
                measured |= {
                    "f1_real": partial(metrics.f1, truth, said, REAL),
                    "f1_fake": partial(metrics.f1, truth, said, FAKE),
                    "f1_macro": partial(metrics.f1_macro, truth, said),
                    "auc": partial(metrics.auc, truth, part["p_fake"].to_numpy()),
                    "unparsed": partial(metrics.mean, said == metrics.VERDICTS["unparsed"]),
                }
            for name, metric in measured.items():
                value, low, high = metrics.interval(metric, weights)
                if not np.isnan(value):  # AUC where all labels are alike
                    rows.append((method, benchmark, subset, name, value, low, high, len(part)))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def load_tests(params: Params) -> dict[str, Sequence[Record]]:
    """FakeClue's test split and, where the profile has it, LOKI; at most `evaluate.limit` images of each."""
    folders = {
        "fakeclue": paths.artifacts("annotate", "fakeclue", "test"),
        "loki": paths.artifacts("collect", "benchmarks", "loki"),
    }
    tests = {name: Records(folder) for name, folder in folders.items()}
    limit = params.evaluate.limit
    return {
        name: records if limit is None else draw(records, limit, params.seed)
        for name, records in tests.items()
        if len(records)
    }


def run(params: Params) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Runs the study and writes `artifacts/study/`: predictions.parquet, scores.csv, probes.csv and log.csv.

    Interrupted, it goes on where it was (`runs/study/`, removed at the end).

    Returns:
        predictions, scores and what was chosen for the probes.

    Raises:
        UserError: an earlier stage has not run, or there is no base model.
    """
    train, val = (Records(paths.artifacts("annotate", "fakeclue", split)) for split in ("train", "val"))
    tests, work = load_tests(params), paths.runs("study")
    answers, chosen = _probes(params, train, val, tests)
    answers[FROZEN] = _asked(params, params.base, FROZEN, tests, work / "answers")
    logs = []
    for objective, method in TUNED.items():
        places = {"out": work / objective, "work": work / "checkpoints"}
        log = finetune(params, objective, **places, steps=params.study.steps)
        logs.append(log.assign(objective=objective))
        answers[method] = _asked(params, work / objective / "model", method, tests, work / "answers")

    predictions = pd.concat(
        [
            _table(records, answers[method][name], method, name)
            for name, records in tests.items()
            for method in METHODS
        ],
        ignore_index=True,
    )
    scores = score(predictions, params.evaluate.bootstrap, params.seed)
    out = paths.artifacts("study")
    out.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    for name, frame in {"scores": scores, "probes": chosen, "log": pd.concat(logs)}.items():
        frame.to_csv(out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    shutil.rmtree(work)
    return predictions, scores, chosen

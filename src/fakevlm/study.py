"""Four ways to get a verdict out of a multimodal model (paper section 4.1, Fig. 3): asking the frozen base, a
linear probe on its features, tuning it to answer "Fake" or "Real", and tuning it to explain its verdict.

Both tunings have the same images in the same order, batch size, learning rate and number of steps.
"""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fakevlm import paths
from fakevlm.cache import Cache, code_version, damage, digests, kept, model_version
from fakevlm.cache import work as open_cache
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.data.shards import Records, columns_of
from fakevlm.evaluation import metrics
from fakevlm.evaluation.metrics import COLUMNS, FAKE
from fakevlm.inference import generate, ray_cluster
from fakevlm.inference.predict import Columns, Predictor, predict
from fakevlm.model.collate import ask
from fakevlm.model.llava import load_for_inference, load_processor
from fakevlm.model.verdict import round_log_odds
from fakevlm.model.weights import locate
from fakevlm.progress import say
from fakevlm.training.data import random_subset
from fakevlm.training.finetune import Run, finetune

FROZEN, VISION_PROBE, LMM_PROBE = "Frozen QA", "Linear probe (vision tower)", "Linear probe (LMM last layer)"
TUNED = {"label": "Direct real/fake QA", "explanation": "Explanatory VQA"}
METHODS = (FROZEN, VISION_PROBE, LMM_PROBE, *TUNED.values())
# Features that each probe may use; the better one on the validation split counts.
POOLINGS = {VISION_PROBE: ("vision",), LMM_PROBE: ("last", "mean")}
STRENGTHS = tuple(10.0**n for n in range(-5, 3))  # of the probes' inverse regularisation C
PREDICTION_COLUMNS = ["method", "benchmark", "id", "group", "label", "category", "text", "p_fake", "verdict"]

Split = Sequence[Record]
Tests = dict[str, Split]  # by benchmark
Answers = dict[str, Columns]  # text, p_fake and verdict by benchmark


@torch.inference_mode()
def features(model: torch.nn.Module, processor: Any, images: Sequence[Image.Image]) -> Columns:
    """Return features of n images, float32, from a frozen LLaVA that is asked the standard question.

    `vision` (n, d_vision) is the mean of the patches that the projector reads; `last` and `mean` (n, d_text)
    are the language model's last hidden state at the prompt's last token, and its mean over the prompt.
    """
    inputs, inner = ask(model, processor, images), model.model
    vision = inner.get_image_features(pixel_values=inputs["pixel_values"], return_dict=True)
    patches = vision.hidden_states[model.config.vision_feature_layer]
    if model.config.vision_feature_select_strategy == "default":
        patches = patches[:, 1:]  # without the class token
    # All prompts are equal, so nothing is padded and no mask is needed.
    out = inner(input_ids=inputs["input_ids"], mm_encoder_outputs={"image": vision}, use_cache=False)
    states = out.last_hidden_state
    pooled = {"vision": patches.mean(dim=1), "last": states[:, -1], "mean": states.mean(dim=1)}
    return {name: rows.float().cpu().numpy() for name, rows in pooled.items()}


def probe(
    train: Columns, train_labels: np.ndarray, val: Columns, val_labels: np.ndarray, poolings: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """Return the logistic regression that is right most often on validation, and its pooling, C and val_acc.

    Among equals the first pooling and the strongest regularisation win.
    """
    best: tuple[Any, dict[str, Any]] = (None, {"val_acc": -1.0})
    for pooling in poolings:
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
            model.fit(train[pooling], train_labels)
            right = float((model.predict(val[pooling]) == val_labels).mean())
            if right > best[1]["val_acc"]:
                best = model, {"pooling": pooling, "C": strength, "val_acc": right}
    return best


def _probes(
    params: Params, train: Split, val: Split, tests: Tests, cache: Cache
) -> tuple[dict[str, Answers], pd.DataFrame]:
    """Return both probes' answers by method, and what was chosen for them."""
    base, precision = locate(params.base), params.evaluate.precision
    modules = (f"fakevlm.model.{name}" for name in ("chat", "collate", "llava"))
    code = code_version(__name__, "fakevlm.data.records", *modules)
    key = [model_version(base), precision, code]
    load = lambda: partial(features, load_for_inference(base, precision), load_processor(base))  # noqa: E731
    predictor = Predictor(load, key, params.evaluate.batch_size)
    parts = {"train": random_subset(train, params.study.probe_images, params.seed), "val": val, **tests}
    labels = {name: columns_of(records, ["label"])["label"].to_numpy(int) for name, records in parts.items()}
    see = partial(predict, predictor, cache=cache, cluster=params.cluster)
    values = {name: see(records, desc=f"features {name}") for name, records in parts.items()}
    answers: dict[str, Answers] = {}
    chosen = []
    for method, poolings in POOLINGS.items():
        classifier, choice = probe(values["train"], labels["train"], values["val"], labels["val"], poolings)
        chosen.append({"method": method, **choice, "images": len(parts["train"])})
        column, answers[method] = list(classifier.classes_).index(FAKE), {}
        for name in tests:
            p_fake = classifier.predict_proba(values[name][choice["pooling"]])[:, column].astype(float)
            p_fake = round_log_odds(p_fake)
            verdict = np.where(p_fake >= 0.5, "fake", "real")
            answers[method][name] = {"text": None, "p_fake": p_fake, "verdict": verdict}
    return answers, pd.DataFrame(chosen)


def _words(params: Params, weights: str | Path, method: str, tests: Tests, cache: Cache) -> Answers:
    """Return a model's answers in words."""
    sizes = {"batch_size": params.evaluate.batch_size, "max_new_tokens": params.evaluate.max_new_tokens}
    options = {**sizes, "compiled": params.evaluate.compile}
    llava = generate.predictor(weights, params.evaluate.precision, **options)
    ask_about = partial(predict, llava, cache=cache, cluster=params.cluster, desc=method)
    return {benchmark: ask_about(records) for benchmark, records in tests.items()}


def score(predictions: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Return detection metrics of each method on each benchmark, with 95 % bootstrap intervals over groups.

    Subsets: `all`; `label=real`, `label=fake` and `category=…` with accuracy only. All methods have the same
    `draws`.
    """
    rows = []
    for (benchmark, method), frame in predictions.groupby(["benchmark", "method"], sort=False):
        for subset, mask, _ in metrics.subsets(frame, ("all", "label", "category")):
            part = frame[mask]
            label, everything = part["label"].to_numpy(), np.arange(len(part))
            verdicts, p_fake = metrics.codes(part["verdict"].to_numpy()), part["p_fake"].to_numpy()
            several = metrics.detection(label, verdicts, p_fake, everything, everything)
            several = [metric for metric in several if subset == "all" or metric[0] == "acc"]
            estimates = metrics.estimates(several, label, pd.factorize(part["group"])[0], draws, seed)
            rows += [(method, benchmark, subset, *estimate) for estimate in estimates]
    return pd.DataFrame(rows, columns=COLUMNS)


def load_tests(params: Params) -> Tests:
    """Return FakeClue's test split and, if the profile has it, LOKI; at most `evaluate.limit` images."""
    folders = {"fakeclue": ("annotate", "fakeclue", "test"), "loki": ("collect", "benchmarks", "loki")}
    tests = {name: Records(paths.artifacts(*parts)) for name, parts in folders.items()}
    limit, seed = params.evaluate.limit, params.seed
    return {name: random_subset(test, limit or len(test), seed) for name, test in tests.items() if len(test)}


def _tuned(params: Params, objective: str, out: Path, work: Path) -> pd.DataFrame:
    """Tune and export to `out`, unless that is done; return the log."""
    steps = params.study.steps
    run = Run(params, objective, work=work, steps=steps)
    done = out / f"{run.folder.name}.done"  # the folder is named after everything that decides the weights
    if damaged := damage(out, done):
        if done.exists():
            say(f"{out}: {damaged} is damaged; the training is repeated")
        shutil.rmtree(out, ignore_errors=True)
        finetune(params, objective, out, work=work, steps=steps)
        done.write_text(json.dumps(digests(out)), encoding="utf-8")
    shutil.rmtree(run.folder)  # its checkpoints, 226 GB with 7B
    return pd.read_csv(out / "log.csv")


def run(params: Params) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Run the study and write `artifacts/study/`; return predictions, scores and what the probes chose.

    Interrupted, it goes on where it was (`paths.work`). Raises a UserError where an earlier stage has not
    run, or there is no base model.
    """
    train, val = (Records(paths.artifacts("annotate", "fakeclue", split)) for split in ("train", "val"))
    tests, work, cache = load_tests(params), paths.work(), open_cache()
    with ray_cluster.connected(params.cluster):
        answers, chosen = _probes(params, train, val, tests, cache)
        with kept("predictions") as shared:  # with stage evaluate, whose "LLaVA (untuned)" says the same
            answers[FROZEN] = _words(params, params.base, FROZEN, tests, shared)
    logs = []
    for objective, method in TUNED.items():
        log = _tuned(params, objective, work / objective, work / "checkpoints")
        logs.append(log.assign(objective=objective))
        answers[method] = _words(params, work / objective / "model", method, tests, cache)
    frames = []
    for name, records in tests.items():
        rows = columns_of(records, ["id", "group", "label", "category"]).astype({"label": int})
        frames += [rows.assign(method=m, benchmark=name, **answers[m][name]) for m in METHODS]
    predictions = pd.concat(frames, ignore_index=True)[PREDICTION_COLUMNS]
    scores = score(predictions, params.evaluate.bootstrap, params.seed)
    out = paths.artifacts("study")
    out.mkdir(parents=True, exist_ok=True)
    predictions.to_parquet(out / "predictions.parquet", index=False)
    for name, frame in {"scores": scores, "probes": chosen, "log": pd.concat(logs)}.items():
        frame.to_csv(out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    accuracy = scores[(scores["subset"] == "all") & (scores["metric"] == "acc")]
    by_benchmark = accuracy.set_index("method").groupby("benchmark", sort=False)["value"]
    by_method = {name: values.round(6).to_dict() for name, values in by_benchmark}
    # For `dvc metrics` and `dvc exp show`.
    (out / "metrics.json").write_text(json.dumps(by_method, indent=1) + "\n", encoding="utf-8")
    return predictions, scores, chosen

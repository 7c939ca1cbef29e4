"""Entries of params.yaml with a server, images that tell it how to behave, and a run."""

import json
from pathlib import Path
from typing import Any

from fakevlm.annotation.aggregate import Annotation, Candidates
from fakevlm.annotation.aggregate_llm import LLMAggregator
from fakevlm.annotation.annotate import make_annotators
from fakevlm.annotation.prompts import label_prompt
from fakevlm.cache import Cache
from fakevlm.config.params import Baseline, Endpoint, ServedAggregator
from fakevlm.inference.ask import Annotator, Outcome, Request, ask_all
from misbehaving import image

PROMPT = label_prompt("animal", 0)
VALUES = {"name": "Qwen2-VL", "backend": "endpoint", "model": "Qwen/Qwen2-VL-72B-Instruct", "revision": "abc"}
VALUES |= {"max_tokens": 50, "temperature": 0.0, "timeout": 5.0, "retries": 3}


def entry(*urls: str, **changes: Any) -> Endpoint:
    return Endpoint(**{**VALUES, "urls": list(urls), **changes})


def aggregator_entry(*urls: str, **changes: Any) -> ServedAggregator:
    entry = {"name": "Qwen2.5", "with_image": False, "attempts": 3}
    return ServedAggregator(**{**VALUES, "urls": list(urls), **entry, **changes})


def baseline_entry(*urls: str, **changes: Any) -> Baseline:
    return Baseline(**{**VALUES, "urls": list(urls), "name": "Qwen2-VL-7B", **changes})


def clause(statement: str, *annotators: Any, critical: Any = False) -> dict[str, Any]:
    return {"statement": statement, "annotators": list(annotators), "critical": critical}


def reply(verdict: str, **families: Any) -> str:
    return json.dumps({"verdict": verdict, "texture": [], "geometry": [], "lighting": [], **families})


def images(behaviours: list[str]) -> list[Request]:
    rows = ((f"{n}.jpg", image(behaviour, name=str(n))) for n, behaviour in enumerate(behaviours))
    return [Request(name, name, picture, PROMPT) for name, picture in rows]


def ask(
    file: Path | None, requests: list[Request], *models: Endpoint | Annotator, **options: Any
) -> list[Outcome]:
    """The outcomes of each request by each model, answers kept in a file."""
    specs = [model for model in models if isinstance(model, Endpoint)]
    annotators = make_annotators(specs, {}, seed=17) if specs else list(models)
    with Cache(file) as store:
        columns = ask_all(requests, annotators, store, **options)
    rows = zip(*(zip(each["status"], each["text"], strict=True) for each in columns.values()), strict=True)
    return [Outcome(*each) for row in rows for each in row]


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def aggregate(
    file: Path | None, candidates: list[Candidates], spec: ServedAggregator, pictures: dict | None = None
) -> list[Annotation]:
    with Cache(file) as store:
        return list(LLMAggregator(spec, 2, 17, store, (pictures or {}).get).aggregate(candidates))


def answered(file: Path) -> int:
    with Cache(file) as store:
        return store._db.execute("SELECT count(*) FROM cache").fetchone()[0]

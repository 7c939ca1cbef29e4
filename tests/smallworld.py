"""A small collected and categorized world, as the stages before `annotate` leave it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from fakevlm.annotation.annotate import FakeClue, build
from fakevlm.cache import Cache
from fakevlm.config.params import load_params
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.records import FAKE, REAL, Record, write_records
from fakevlm.inference.ask import Outcome, Request
from miniworld.world import shoot

GENERATED = ("animal", "object", "human", "scene")


def make_world(folder: Path, per_label: int = 12, videos: int = 6, seed: int = 5) -> Path:
    """Write `collect/` and `categorize/` with images of three sources to a folder; return it."""
    rng = np.random.default_rng(seed)
    records, ground_truths, categories = [], [], []

    def add(key: str, category: str, group: str, split: str | None = None, **options) -> None:
        source, kind = key.split("/")[:2]
        label = FAKE if kind == "fake" else REAL
        shot = shoot(category, rng, fake=label == FAKE, size=64, **options)
        given = category if source == "ff++" else None
        record = Record(key, shot.jpeg, label, source, group, given, split=split)
        record.height, record.width = shot.pixels.shape[:2]
        records.append(record)
        ground_truths.append(GroundTruth(key, label, category, shot.artifacts, shot.qualities))
        categories.append((key, category))

    for n in range(per_label):
        add(f"genimage/real/{n:03d}.jpg", GENERATED[n % 4], f"r{n}")
        for extra in range(2):  # twice as many fakes as photographs
            key = f"genimage/fake/adm/{n:03d}_{extra}.jpg"
            add(key, GENERATED[n % 4], key)
    add("chameleon/fake/0.jpg", "scene", "c0", count=(0, 0))
    add("chameleon/real/0.jpg", "scene", "c1")
    for v in range(videos):
        split = ("train", "train", "val", "test")[v % 4]
        for n in range(2):
            for kind in ("real", "fake/Deepfakes", "fake/FaceSwap"):
                add(f"ff++/{kind}/{v:03d}/{n}.png", "deepfake", f"{v:03d}", split)
    write_records(records, folder / "collect" / "records", shard_rows=25)
    write_ground_truth(ground_truths, folder / "collect" / "ground_truth.jsonl")
    (folder / "categorize").mkdir(parents=True)
    table = pd.DataFrame(categories, columns=["id", "category"]).assign(confidence=1.0, origin="model")
    table.to_parquet(folder / "categorize" / "categories.parquet", index=False)
    return folder


def annotate(world: Path, out: Path, store: Cache, scripted: list | None = None, **changes) -> FakeClue:
    """Run the stage with the miniature's section `annotate` changed, or with scripted annotators."""
    params = load_params("mini")
    section = params.annotate.model_copy(update={"expected": None} | changes)
    params = params.model_copy(update={"annotate": section})
    folders = {"collected": world / "collect", "categorized": world / "categorize", "out": out}
    return build(params, **folders, store=store, annotators=scripted)


class Scripted:
    """An annotator whose answers a test writes, and whose questions it counts."""

    revision, sampling = "1", {"temperature": 0.0}

    def __init__(self, model: str, answers: Mapping[str, Outcome] | None = None, delay: float = 0.0) -> None:
        self.model, self.answers, self.delay = model, answers or {}, delay
        self.asked: list[str] = []

    async def annotate(self, request: Request) -> Outcome:
        await asyncio.sleep(self.delay)
        self.asked.append(request.id)
        return self.answers.get(request.id, Outcome("ok", f"{self.model} saw {request.id}"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}

"""Statistics of whole images hardly tell the miniature's drawn fakes: grain and file size are no shortcut."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import ROOT
from fakevlm.annotation.splits import assign_splits, balance
from fakevlm.collection.collect import collect
from fakevlm.config.params import Params, load_params
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.data.records import Record, encode, read_frame, read_records

EDGES = (1, 4, 8, 16, 24, 34, 48, 70)  # radii in the 2-D spectrum, cycles an image


def statistics(record: Record) -> list[float]:
    """Channel moments, gradient energy, energy in spectrum bands, sizes as a file and as a JPEG."""
    image = record.pil()
    pixels = np.asarray(image, np.float32)
    channels = pixels.reshape(-1, 3)
    mean, deviation = channels.mean(axis=0), channels.std(axis=0)
    standard = (channels - mean) / deviation
    values = [mean, deviation, (standard**3).mean(axis=0), (standard**4).mean(axis=0)]
    grey = pixels.mean(-1)
    gradients = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    values.append([*gradients, cv2.Laplacian(grey, cv2.CV_32F).var()])
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2
    ys, xs = np.indices(grey.shape)
    radius = np.hypot(ys - grey.shape[0] // 2, xs - grey.shape[1] // 2)
    values.append([np.log(spectrum[(radius >= a) & (radius < b)].mean() + 1) for a, b in pairwise(EDGES)])
    return [*np.concatenate(values), len(record.image), len(encode(image, "JPEG", quality=90))]


@pytest.mark.slow
def test_global_statistics_hardly_tell_fake_from_real(project: Path):
    (project / "data").symlink_to(ROOT / "embedded")
    values, collected = load_params("mini").model_dump(), project / "collected"
    values["collect"] |= {"satellites": None, "synthetic_satellites": 400}  # none of what networks generate
    params = Params(**values)
    collect(params, collected)
    ground_truths = read_ground_truth(collected / "ground_truth.jsonl")
    frame = read_frame(collected / "records")
    frame["category"] = [ground_truths[path].category for path in frame.id]
    fractions = params.annotate.val_fraction, params.annotate.test_fraction
    frame["split"] = assign_splits(frame, *fractions, params.seed)
    splits = balance(frame, params.seed).set_index("id").split
    used = {*splits.index[splits == "train"][::3], *splits.index[splits == "test"]}
    rows = [r for r in read_records(collected / "records") if r.id in used]
    split = splits[[r.id for r in rows]].to_numpy()
    features, labels = np.array([statistics(r) for r in rows]), np.array([r.label for r in rows])
    train, test = split == "train", split == "test"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
    model.fit(features[train], labels[train])
    assert test.sum() >= 600
    assert labels[test].mean() == pytest.approx(0.5, abs=0.02)
    accuracy = model.score(features[test], labels[test])
    assert accuracy <= 0.65, f"global statistics alone reach {accuracy:.3f}"
    # The statistics are not noise either: the detectors have honest traces to find.
    assert model.score(features[train], labels[train]) > 0.52

"""Table 5's Average for this run: the mean AUC over the four manipulations, with an interval of its own.

The four AUCs share the real frames, so their mean's interval does not follow from theirs.
"""

import numpy as np
import pandas as pd

from fakevlm.evaluation.metrics import auc, draws, interval

MANIPULATIONS = {"FF-DF": "Deepfakes", "FF-F2F": "Face2Face", "FF-FS": "FaceSwap", "FF-NT": "NeuralTextures"}


def average_auc(predictions: pd.DataFrame, bootstrap: int, seed: int) -> pd.DataFrame:
    """Return each method's mean AUC over the manipulations of FF++, each against all real frames.

    Args:
        predictions: of the FF++ benchmark; `item` is the video, which is what the bootstrap draws.
        bootstrap: number of draws.

    Returns:
        tidy scores with benchmark ffpp, subset Average, metric auc; n counts frames. Methods without P(fake)
        or without one of the four manipulations are left out.
    """
    rows = []
    for method, frame in predictions.groupby("method", sort=True):
        frame = frame.reset_index(drop=True)
        label, p_fake = frame.label.to_numpy(), frame.p_fake.to_numpy(dtype=float)
        masks = [(label == 1) | (frame.generator == name).to_numpy() for name in MANIPULATIONS.values()]
        if np.isnan(p_fake).any() or not all(len(set(label[mask])) == 2 for mask in masks):
            continue

        def mean(weights: np.ndarray | None, label=label, p_fake=p_fake, masks=masks) -> np.ndarray:
            parts = [auc(label[m], p_fake[m], None if weights is None else weights[..., m]) for m in masks]
            return np.mean(parts, axis=0)

        videos = pd.factorize(frame["item"])[0]
        rows.append((method, *interval(mean, draws(label, videos, bootstrap, seed)), len(frame)))
    scores = pd.DataFrame(rows, columns=["method", "value", "ci_low", "ci_high", "n"])
    return scores.assign(benchmark="ffpp", subset="Average", metric="auc")

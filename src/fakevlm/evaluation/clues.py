"""Kinds of artifact that explanations name beside those that are there, which only the miniature knows.

Each kind counts at most once an image, on fakes with visible artifacts. A fake taken for real names nothing
and loses recall; a kind that is not there costs precision. Sums run over all images (micro-average).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.ground_truth import GroundTruth

KIND_NAMES = tuple(KINDS)


def clue_tables(
    paths: Sequence[str], texts: Sequence[str | None], ground_truth: Mapping[str, GroundTruth]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kinds of artifact in n images and in the texts about them.

    Args:
        paths: the images' paths (`Record.path`).
        texts: an explanation of each.
        ground_truth: from `data.ground_truth.read_ground_truth`.

    Returns:
        Bool arrays: (n,) the image is known to have visible artifacts; (n, kinds) it has the kind;
        (n, kinds) the text names it. Columns are `KIND_NAMES`; rows without known artifacts are empty.
    """
    n = len(paths)
    annotated, true, named = np.zeros(n, bool), *np.zeros((2, n, len(KIND_NAMES)), bool)
    for row, (path, text) in enumerate(zip(paths, texts, strict=True)):
        if path in ground_truth and (kinds := ground_truth[path].kinds):
            annotated[row], true[row] = True, [name in kinds for name in KIND_NAMES]
            kinds = kinds_named(text or "")
            named[row] = [name in kinds for name in KIND_NAMES]
    return annotated, true, named

"""LOKI (Ye et al., ICLR 2025), its images: real or generated, and people's descriptions. A benchmark only.

<root>/data_json/image/true_or_false.json   2,217 images, each asked both ways
<root>/data_json/image/open_ended_vqa.json   UTF-16; 229 images, all fake, described by people
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakevlm.data.corpora.files import SOURCES
from fakevlm.data.corpora.imagefolders import Place
from fakevlm.data.records import FAKE, REAL

SOURCE = SOURCES["loki"]
CATEGORIES = {"animals": "animal", "person": "human", "sence": "scene", "scenery": "scene"}
_TYPE = re.compile(r"image_tf_image_(real|fake)_ask_(real|fake)_(\w+)$")


def _clean(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./").lstrip("/")


def reference(problems: dict[str, Any]) -> str:
    """Join an image's descriptions (LOKI's paper does not say how it did), the global ones first.

    `problems` is {`global`: [{`desc`}], `regional`: [{`region`, `desc`}]}; without any, the text is empty.
    """
    entries = [problem for key in ("global", "regional") for problem in problems.get(key) or []]
    texts = [" ".join((problem.get("desc") or "").split()) for problem in entries]
    return " ".join(text if text[-1] in ".!?" else f"{text}." for text in texts if text)


def references(root: Path) -> dict[str, str]:
    """Return people's descriptions by image path. Raises `UserError` if the file is missing or not LOKI's."""
    file = root / "data_json" / "image" / "open_ended_vqa.json"
    try:
        return {_clean(row["image_path"]): reference(row["problems"]) for row in SOURCE.json(file)}
    except (AttributeError, KeyError, TypeError) as error:
        raise SOURCE.error(f"{file}: a row is not LOKI's ({error!r})") from error


def labels(root: Path) -> tuple[dict[str, tuple[str, str]], int]:
    """Return (`real` or `fake`, LOKI's own category) by image path, in order, and the number of questions.

    The label is in `question_type`: `image_tf_image_{real|fake}_ask_{fake|real}_{category}`. Raises
    `UserError` if the JSON is missing, a row is not LOKI's, or two rows of an image disagree on its label.
    """
    file = root / "data_json" / "image" / "true_or_false.json"
    rows = SOURCE.json(file)
    by_path: dict[str, tuple[str, str]] = {}
    for n, row in enumerate(rows):
        try:
            path, match = _clean(row["image_path"]), _TYPE.search(row["question_type"])
        except (KeyError, TypeError, AttributeError) as error:
            raise SOURCE.error(f"{file}, row {n}: not LOKI's ({error!r})") from error
        if match is None:
            raise SOURCE.error(f"{file}, row {n}: question_type {row['question_type']!r}")
        label = (match[1], match[3])
        if by_path.setdefault(path, label) != label:
            raise SOURCE.error(f"{file}, row {n}: {path} is called both {by_path[path]} and {label}")
    return by_path, len(rows)


def places(root: Path) -> Iterator[Place]:
    """Yield the images in the JSON's order. Raises `UserError` as `labels` and `references` do."""
    described = references(root)
    for path, (label, category) in labels(root)[0].items():
        text = described.get(path)
        fields = {"label": REAL if label == "real" else FAKE, "source": "loki", "split": "test"}
        fields |= {"category": CATEGORIES.get(category, category), "references": [text] if text else []}
        yield Place(root / path, f"loki/{path}", fields)

"""LOKI (Ye et al., ICLR 2025), its images: real or generated, and people's descriptions. A benchmark only.

Licence: CC BY 4.0; from https://huggingface.co/datasets/bczhou/LOKI (code:
https://github.com/opendatalab/LOKI).

Layout::

    <root>/data_json/image/true_or_false.json      4,434 rows: 2,217 images, each asked both ways
    <root>/data_json/image/open_ended_vqa.json     UTF-16; 229 images, all fake, described by people
    <root>/<image_path>

A row of `true_or_false.json`: `image_path`, `question`, `answer` (Yes/No), `metric`, `modality`, `choices`,
`id`, and `question_type` = `image_tf_image_{real|fake}_ask_{fake|real}_{category}`, which holds the truth.
Both rows of an image become one record. Categories: animals, doc, medicine, object, person, satellite, sence
(sic).

A row of `open_ended_vqa.json`: `image_path`, `problems` = {`global`: [{`desc`}], `regional`: [{`region`: [x,
y, w, h], `desc`}]}. Its descriptions, joined, are the image's reference; the paper does not say how it made
its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakevlm.data.corpora.files import Quarantine, need_folder, need_json
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.errors import UserError

WHERE = "get LOKI from https://huggingface.co/datasets/bczhou/LOKI"
CATEGORIES = {"animals": "animal", "person": "human", "sence": "scene", "scenery": "scene"}
_TYPE = re.compile(r"image_tf_image_(real|fake)_ask_(real|fake)_(\w+)$")


def _clean(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./").lstrip("/")


def reference(problems: dict[str, Any]) -> str:
    """All descriptions of an image, the global ones first, joined into one text; empty if there are none."""
    texts = []
    for key in ("global", "regional"):
        for problem in problems.get(key) or []:
            text = " ".join(str(problem.get("desc") or "").split())
            if text:
                texts.append(text if text[-1] in ".!?" else text + ".")
    return " ".join(texts)


def references(root: Path) -> dict[str, str]:
    """What people described, by image path; an empty text where they wrote nothing.

    Raises:
        UserError: open_ended_vqa.json is missing or not LOKI's.
    """
    file = root / "data_json" / "image" / "open_ended_vqa.json"
    try:
        return {
            _clean(row["image_path"]): reference(row["problems"]) for row in need_json(file, "LOKI", WHERE)
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"LOKI: {file}: a row is not LOKI's ({error!r})", WHERE) from error


def questions(root: Path) -> list[Any]:
    """The rows of `true_or_false.json`, unchecked.

    Raises:
        UserError: the JSON is missing.
    """
    return need_json(root / "data_json" / "image" / "true_or_false.json", "LOKI", WHERE)


def truths(root: Path) -> dict[str, tuple[str, str]]:
    """(`real` or `fake`, LOKI's own category) by image path, in the order of `true_or_false.json`.

    Raises:
        UserError: the JSON is missing, a row is not LOKI's, or two rows of an image disagree on its truth.
    """
    file = root / "data_json" / "image" / "true_or_false.json"
    truth: dict[str, tuple[str, str]] = {}
    for n, row in enumerate(questions(root)):
        try:
            path, match = _clean(row["image_path"]), _TYPE.search(row["question_type"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"LOKI: {file}, row {n}: not LOKI's ({error!r})", WHERE) from error
        if match is None:
            raise UserError(f"LOKI: {file}, row {n}: question_type {row['question_type']!r}", WHERE)
        stated = (match.group(1), match.group(3))
        if truth.setdefault(path, stated) != stated:
            raise UserError(f"LOKI: {file}, row {n}: {path} is called both {truth[path]} and {stated}", WHERE)
    return truth


def read(root: Path, quarantine: Quarantine | None = None) -> Iterator[Record]:
    """Streams one record an image, in the order of `true_or_false.json`.

    Images that the JSON names and the folder lacks go to quarantine.

    Raises:
        UserError: the folder or a JSON is missing, a row is not LOKI's, or two rows of an image disagree on
            its truth.
    """
    need_folder(root, "LOKI", WHERE)
    described = references(root)
    for path, (kind, category) in truths(root).items():
        image = root / path
        if not image.is_file():
            if quarantine is not None:
                quarantine.add("loki", path, "named in true_or_false.json but missing")
            continue
        text = described.get(path, "")
        yield Record(
            id=f"loki/{path}",
            image=image.read_bytes(),
            label=REAL if kind == "real" else FAKE,
            source="loki",
            item=f"loki/{path}",
            category=CATEGORIES.get(category, category),
            split="test",
            references=[text] if text else [],
        )

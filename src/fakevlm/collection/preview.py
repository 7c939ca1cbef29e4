"""A sheet of sample images of the collection."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from fakevlm.data.records import REAL, Record

TILE, STEP, LABEL = 96, 100, 132  # pixels


def sample(records: Iterable[Record], per_row: int, seed: int) -> dict[tuple[str, int], list[Record]]:
    """Draw up to `per_row` records of every source and label from a stream of any length."""
    rng = random.Random(seed)
    rows: dict[tuple[str, int], list[Record]] = defaultdict(list)
    counts: Counter[tuple[str, int]] = Counter()
    for record in records:
        key = (record.source, record.label)
        counts[key] += 1
        if len(rows[key]) < per_row:
            rows[key].append(record)
        elif (place := rng.randrange(counts[key])) < per_row:  # reservoir sampling
            rows[key][place] = record
    return rows


def contact_sheet(records: Iterable[Record], per_row: int = 9, seed: int = 0) -> Image.Image:
    """Draw one row of images for each source and label, real above fake; larger images are scaled down."""
    rows = sorted(sample(records, per_row, seed).items(), key=lambda row: (row[0][0], -row[0][1]))
    sheet = Image.new("RGB", (LABEL + per_row * STEP, max(1, len(rows)) * STEP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for n, ((source, label), chosen) in enumerate(rows):
        text = f"{source}\n{'real' if label == REAL else 'fake'}"
        draw.multiline_text((4, n * STEP + TILE // 2 - 16), text, fill="black", font=font)
        for k, record in enumerate(chosen):
            image = record.pil()
            image.thumbnail((TILE, TILE))
            sheet.paste(image, (LABEL + k * STEP, n * STEP))
    return sheet

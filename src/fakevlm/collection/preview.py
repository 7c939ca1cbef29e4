"""A sheet of sample images, to look at what was collected."""

import random
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from fakevlm.data.records import REAL, Record

TILE, GAP, LABEL = 96, 4, 132  # pixels


def sample(records: Iterable[Record], per_row: int, seed: int) -> dict[tuple[str, int], list[Record]]:
    """Up to `per_row` records of every source and label, drawn evenly from a stream of any length."""
    rng = random.Random(seed)
    drawn: dict[tuple[str, int], list[Record]] = {}
    met: dict[tuple[str, int], int] = {}
    for record in records:
        key = (record.source, record.label)
        row = drawn.setdefault(key, [])
        met[key] = met.get(key, 0) + 1
        if len(row) < per_row:
            row.append(record)
        elif (place := rng.randrange(met[key])) < per_row:  # reservoir sampling
            row[place] = record
    return drawn


def contact_sheet(records: Iterable[Record], per_row: int = 9, seed: int = 0) -> Image.Image:
    """One row of images for each source and label, real above fake; larger images are scaled down."""
    drawn = sample(records, per_row, seed)
    rows = sorted(drawn, key=lambda key: (key[0], -key[1]))
    step = TILE + GAP
    sheet = Image.new("RGB", (LABEL + per_row * step, max(1, len(rows)) * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for n, key in enumerate(rows):
        name = f"{key[0]}\n{'real' if key[1] == REAL else 'fake'}"
        draw.multiline_text((4, n * step + TILE // 2 - 16), name, fill="black", font=font)
        for k, record in enumerate(drawn[key]):
            image = record.pil()
            image.thumbnail((TILE, TILE))
            sheet.paste(image, (LABEL + k * step, n * step))
    return sheet

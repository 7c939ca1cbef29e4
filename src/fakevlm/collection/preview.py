"""Sheets of sample images of the collection."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

from fakevlm.config.params import Satellites
from fakevlm.data.records import REAL, Record
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map, square
from fakevlm.synthesis.satellite.generate import GENERATORS

TILE, GAP, LABEL = 96, 4, 132  # pixels


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


def _sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: int, tile: int) -> Image.Image:
    """Return rows of images of at most `tile` pixels a side, each with its label on the left."""
    step = tile + GAP
    sheet = Image.new("RGB", (LABEL + columns * step, max(1, len(rows)) * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for n, (label, images) in enumerate(rows):
        draw.text((4, n * step + tile // 2 - 8 * len(label.splitlines())), label, fill="black", font=font)
        for k, image in enumerate(images):
            sheet.paste(image, (LABEL + k * step, n * step))
    return sheet


def contact_sheet(records: Iterable[Record], per_row: int = 9, seed: int = 0) -> Image.Image:
    """Draw one row of images for each source and label, real above fake; larger images are scaled down."""
    rows = []
    chosen = sorted(sample(records, per_row, seed).items(), key=lambda row: (row[0][0], -row[0][1]))
    for (source, label), some in chosen:
        images = [record.pil() for record in some]
        for image in images:
            image.thumbnail((TILE, TILE))
        rows.append((f"{source}\n{'real' if label == REAL else 'fake'}", images))
    return _sheet(rows, per_row, TILE)


def generated_sheet(records: Iterable[Record], settings: Satellites, columns: int = 9) -> Image.Image:
    """Draw a column for each aerial image: the image, its map, and what each generator made from the map.

    The aerial images are the first by path of those that all generators used, at most `columns`.
    """
    reals: dict[str, Record] = {}
    generated: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        if record.source == "satellite" and record.label == REAL and record.split is None:
            reals[record.group] = record
        elif record.generator in GENERATORS.values():
            generated[record.group][record.generator] = record
    used = [name for name in GENERATORS.values() if any(name in images for images in generated.values())]
    groups = sorted(group for group, images in generated.items() if len(images) == len(used))[:columns]
    size = settings.image_size
    aerials = [square(reals[group].pil(), size) for group in groups]
    maps = [enlarged(layout_map(pixels, settings), settings.cell) for pixels in aerials]
    rows = [("aerial image", aerials), ("its map", maps)]
    rows += [(name, [square(generated[group][name].pil(), size) for group in groups]) for name in used]
    pictures = [(label, [Image.fromarray(pixels) for pixels in row]) for label, row in rows]
    return _sheet(pictures, max(1, len(groups)), size)

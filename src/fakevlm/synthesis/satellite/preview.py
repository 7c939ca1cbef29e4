"""A sheet that shows what the generators made of maps, to look at."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fakevlm.config.satellites import Satellites
from fakevlm.data.records import REAL, Record
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map, square
from fakevlm.synthesis.satellite.generate import GENERATORS

GAP, LABEL = 4, 132  # pixels


def generated_sheet(records: Iterable[Record], settings: Satellites, columns: int = 9) -> Image.Image:
    """A column an aerial image: the image itself, its map, and what each generator made after that map.

    Args:
        records: collected records; a generated image comes after the aerial image of its item.
        columns: aerial images at most, the first by path of those that both generators used.
    """
    names = list(GENERATORS.values())
    reals: dict[str, Record] = {}
    generated: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.source == "satellite" and record.label == REAL and record.split is None:
            reals[record.item] = record
        elif record.generator in names:
            generated.setdefault(record.item, {})[record.generator] = record
    used = [name for name in names if any(name in images for images in generated.values())]
    shown = sorted(item for item, images in generated.items() if set(images) == set(used))[:columns]
    size = settings.image_size
    sheet = Image.new(
        "RGB", (LABEL + max(1, len(shown)) * (size + GAP), (2 + len(used)) * (size + GAP)), "white"
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for n, name in enumerate(("aerial image", "its map", *used)):
        draw.text((4, n * (size + GAP) + size // 2 - 8), name, fill="black", font=font)
    for k, item in enumerate(shown):
        pixels = square(reals[item].pil(), size)
        layout = enlarged(layout_map(pixels, settings.cell, settings.levels), settings.cell)
        column = [pixels, layout, *(square(generated[item][name].pil(), size) for name in used)]
        for n, image in enumerate(column):
            sheet.paste(
                Image.fromarray(np.ascontiguousarray(image)), (LABEL + k * (size + GAP), n * (size + GAP))
            )
    return sheet

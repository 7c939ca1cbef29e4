"""A sheet of generated satellite images beside the maps that they were generated from."""

from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from fakevlm.config.params import Satellites
from fakevlm.data.records import REAL, Record
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map, square
from fakevlm.synthesis.satellite.generate import GENERATORS

GAP, LABEL = 4, 132  # pixels


def generated_sheet(records: Iterable[Record], settings: Satellites, columns: int = 9) -> Image.Image:
    """Return a sheet with a column per aerial image: the image, its map, and each generator's image.

    Args:
        records: collected records; a generated image comes after the aerial image of its item.
        columns: aerial images at most, the first by path of those that both generators used.
    """
    reals: dict[str, Record] = {}
    generated: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.source == "satellite" and record.label == REAL and record.split is None:
            reals[record.item] = record
        elif record.generator in GENERATORS.values():
            generated.setdefault(record.item, {})[record.generator] = record
    used = [name for name in GENERATORS.values() if any(name in images for images in generated.values())]
    shown = sorted(item for item, images in generated.items() if set(images) == set(used))[:columns]
    size = settings.image_size
    step = size + GAP
    sheet = Image.new("RGB", (LABEL + max(1, len(shown)) * step, (2 + len(used)) * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for row, name in enumerate(("aerial image", "its map", *used)):
        draw.text((4, row * step + size // 2 - 8), name, fill="black", font=font)
    for column, item in enumerate(shown):
        pixels = square(reals[item].pil(), size)
        layout = enlarged(layout_map(pixels, settings.cell, settings.levels), settings.cell)
        images = [pixels, layout, *(square(generated[item][name].pil(), size) for name in used)]
        for row, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (LABEL + column * step, row * step))
    return sheet

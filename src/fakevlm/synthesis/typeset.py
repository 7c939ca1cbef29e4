"""Pages set in fonts: a layout filled with titles, columns of text, pictures, tables, captions and rules.

The fonts are DejaVu, which come with matplotlib. Where letters would be too small to read, lines of text are
greeked: grey bars as long as words."""

import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.page_layout import Block, jitter
from fakevlm.synthesis import prose

LONG_SIDE = 1024  # pixels of a page
TEXT = 0.0125  # height of running text, as a fraction of the page's height
LEGIBLE = 6  # pixels: below this size of type, text is greeked
_LEADING = 1.3
Pixels = tuple[int, int, int, int]


class FontRenderer:
    """Renderer of documents (`collect.renderer: fonts`): real text in real fonts; no flaws are known."""

    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, None]:
        scale = LONG_SIDE / max(page.width, page.height)
        size = (max(1, round(page.width * scale)), max(1, round(page.height * scale)))
        out = io.BytesIO()
        picture = render_page(jitter(page.layout, rng), rng, size=size)
        picture.save(out, format="JPEG", quality=int(rng.integers(80, 96)))
        return out.getvalue(), None


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def render_page(layout: Sequence[Block], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Return the page as a picture.

    Args:
        layout: the blocks; later ones are drawn over earlier ones.
        rng: chooses words, colours, pictures.
        size: width and height in pixels.

    Returns:
        An RGB image of that size.
    """
    width, height = size
    paper = tuple(int(v) for v in np.array([252, 251, 247]) - rng.integers(0, 14))
    page = Image.new("RGB", size, paper)
    setter = _Setter(page, rng, serif=bool(rng.random() < 0.6))
    for block in layout:
        x0, y0, x1, y1 = block.box
        box = (round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height))
        if box[2] > box[0] and box[3] > box[1]:
            setter.set(block, box)
    return page


class _Setter:
    """Draws blocks on one page, all in one typeface and one ink."""

    def __init__(self, page: Image.Image, rng: np.random.Generator, serif: bool) -> None:
        self.page, self.rng = page, rng
        self.draw = ImageDraw.Draw(page)
        self.face = "DejaVuSerif" if serif else "DejaVuSans"
        grey = int(rng.integers(10, 50))
        self.ink = (grey, grey, grey + 4)
        self.body = max(1, round(page.height * TEXT))
        self.number = int(rng.integers(1, 200))

    def set(self, block: Block, box: Pixels) -> None:
        """Fill one block, by its finer class if that has a way of its own, else by its kind."""
        kind, fine = block.kind, self._fine().get(block.name)
        if fine is not None:
            fine(box)
        elif kind == "title":
            self._title(box)
        elif kind == "figure":
            self._figure(box)
        elif kind == "table":
            self._table(box)
        elif kind == "rule":
            middle = (box[1] + box[3]) // 2
            self.draw.line(
                [(box[0], middle), (box[2], middle)], fill=self.ink, width=max(1, self.page.height // 700)
            )
        elif kind == "footer":
            self._line(box, str(self.number), self.face, self.body)
        elif kind == "header":
            self._line(box, prose.headline(self.rng), self.face, self.body)
        elif kind == "caption":
            self._column(box, max(1, round(self.body * 0.85)), f"{self.face}-Bold", opening="Figure")
        else:
            self._column(box, self.body, self.face)

    def _fine(self) -> dict[str, Callable[[Pixels], None]]:
        """M6Doc's classes that are set neither as running text nor like their kind."""
        small = max(1, round(self.body * 0.8))
        notes = (
            "footnote",
            "endnote",
            "table note",
            "marginal note",
            "supplementary note",
            "reference",
            "credit",
        )
        return {
            "unordered list": lambda box: self._list(box, numbered=False),
            "ordered list": lambda box: self._list(box, numbered=True),
            "formula": self._formula,
            "algorithm": self._code,
            "code": self._code,
            "drop cap": self._drop_cap,
            "qr code": lambda box: self._marks(box, square=True),
            "barcode": lambda box: self._marks(box, square=False),
            "blank": lambda box: None,
            **dict.fromkeys(notes, lambda box: self._column(box, small, self.face)),
        }

    def _list(self, box: Pixels, numbered: bool) -> None:
        """Items of one line each behind bullets or numbers."""
        step = max(2, round(self.body * _LEADING))
        indent = round(self.body * 1.8)
        for n, top in enumerate(range(box[1], max(box[1] + 1, box[3] - self.body), step)):
            mark = f"{n + 1}." if numbered else "•"
            bottom = min(box[3], top + step)
            self._line((box[0], top, box[0] + indent, bottom), mark, self.face, self.body)
            if box[0] + indent < box[2]:
                item = " ".join(prose.words(self.rng, 12))
                self._line((box[0] + indent, top, box[2], bottom), item, self.face, self.body)

    def _formula(self, box: Pixels) -> None:
        """A sum or fraction on one line, in the middle of the block."""
        x, y, z = self.rng.permutation(list("abcmnpqrstuvxyz"))[:3]
        n, m = self.rng.integers(2, 10, 2)
        forms = (
            f"{x} = {n}{y}² + {m}{z}",
            f"{x}({y}) = ∑ {n}{z} / {m}",
            f"∫ {x} d{y} ≤ {n} √{z}",
            f"{x} ± {m}{y} ≈ {z} ∂{n}",
        )
        text, size = forms[int(self.rng.integers(len(forms)))], min(self.body, box[3] - box[1])
        wide = (
            _font("DejaVuSerif-Italic", size).getlength(text) if size >= LEGIBLE else len(text) * size * 0.55
        )
        left, top = box[0] + max(0, round((box[2] - box[0] - wide) / 2)), (box[1] + box[3] - size) // 2
        self._line((left, top, box[2], max(top + size, box[3])), text, "DejaVuSerif-Italic", size)

    def _code(self, box: Pixels) -> None:
        """Lines of typewriter type, indented by turns."""
        step, depth = max(2, round(self.body * _LEADING)), 0
        for top in range(box[1], max(box[1] + 1, box[3] - self.body), step):
            word = prose.words(self.rng, 9)[int(self.rng.integers(9))].strip(".'").lower()
            text = (
                f"for {word} in range({int(self.rng.integers(2, 99))}):"
                if self.rng.random() < 0.3
                else f"{word} = {word}(x)"
            )
            left = min(box[0] + round(depth * 1.2 * self.body), box[2] - 1)
            self._line((left, top, box[2], min(box[3], top + step)), text, "DejaVuSansMono", self.body)
            depth = min(3, depth + 1) if text.endswith(":") else max(0, depth - int(self.rng.integers(2)))

    def _drop_cap(self, box: Pixels) -> None:
        """One capital as high as the block."""
        size = min(box[3] - box[1], round((box[2] - box[0]) * 1.2))
        self._line(
            (box[0], box[1], box[0] + 2 * size, box[1] + size),
            prose.headline(self.rng)[0],
            f"{self.face}-Bold",
            size,
        )

    def _marks(self, box: Pixels, square: bool) -> None:
        """Black and white modules in a square with three finders (a QR code), or bars."""
        wide, tall = box[2] - box[0], box[3] - box[1]
        dark = self.rng.random((21, 21) if square else (1, 60)) < 0.5
        if square:
            finder = np.pad(np.pad(np.ones((3, 3), bool), 1), 1, constant_values=True)
            for y, x in ((0, 0), (0, 14), (14, 0)):
                dark[y : y + 7, x : x + 7] = finder
        size = (min(wide, tall),) * 2 if square else (wide, tall)
        picture = Image.fromarray(np.where(dark, 20, 250).astype(np.uint8))
        self.page.paste(picture.resize(size, Image.Resampling.NEAREST).convert("RGB"), box[:2])

    def _grey(self, box: Pixels, size: int, words: Sequence[int]) -> None:
        """Bars for words: one row of them in the box's upper `size` pixels, lengths in average letters."""
        x, tone = box[0], tuple(int(0.5 * i + 0.5 * 200) for i in self.ink)
        for letters in words:
            long = max(1, round(letters * size * 0.55))
            if x + long > box[2]:
                break
            self.draw.rectangle(
                [x, box[1], x + long - 1, min(box[3] - 1, box[1] + max(0, round(size * 0.6) - 1))], fill=tone
            )
            x += long + max(1, round(size * 0.4))

    def _line(self, box: Pixels, text: str, face: str, size: int) -> None:
        size = min(size, box[3] - box[1])
        if size < LEGIBLE:
            self._grey(box, size, [len(word) for word in text.split()])
            return
        font = _font(face, size)
        while text and font.getlength(text) > box[2] - box[0] and " " in text:
            text = text.rsplit(" ", 1)[0]
        self.draw.text((box[0], box[1]), text, font=font, fill=self.ink)

    def _wrap(self, words: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> list[list[str]]:
        lines: list[list[str]] = [[]]
        for word in words:
            if lines[-1] and font.getlength(" ".join([*lines[-1], word])) > width:
                lines.append([])
            lines[-1].append(word)
        return lines

    def _title(self, box: Pixels) -> None:
        """The largest type with which a headline fills the block without leaving it."""
        words = prose.headline(self.rng).split()
        tall, wide = box[3] - box[1], box[2] - box[0]
        for size in range(min(tall, round(self.page.height * 0.06)), 0, -1):
            if size < LEGIBLE:
                self._grey(box, min(tall, size), [len(word) for word in words])
                return
            font = _font(f"{self.face}-Bold", size)
            lines = [" ".join(line) for line in self._wrap(words, font, wide)]
            fits = max(font.getlength(line) for line in lines) <= wide
            if fits and len(lines) * size * 1.2 <= tall + 0.2 * size:
                for n, line in enumerate(lines):
                    self.draw.text((box[0], box[1] + round(n * size * 1.2)), line, font=font, fill=self.ink)
                return

    def _column(self, box: Pixels, size: int, face: str, opening: str = "") -> None:
        """Justified text from the block's top to its bottom."""
        size = min(size, box[3] - box[1])
        step = max(2, round(size * _LEADING))
        rows = max(1, (box[3] - box[1] - size) // step + 1)
        if size < LEGIBLE:
            for row in range(rows):
                top = box[1] + row * step
                lengths = self.rng.integers(2, 10, 60).tolist()
                self._grey((box[0], top, box[2], min(box[3], top + step)), size, lengths)
            return
        font, wide = _font(face, size), box[2] - box[0]
        letters = max(4.0, wide / (size * 0.55))
        words = prose.words(self.rng, round(rows * letters / 4) + 8)
        words = [opening, f"{int(self.rng.integers(1, 9))}:", *words] if opening else words
        lines = self._wrap(words, font, wide)[:rows]
        for n, line in enumerate(lines):
            last = n == len(lines) - 1
            self._justified((box[0], box[1] + n * step), line, font, wide, ragged=last or bool(opening))

    def _justified(
        self, at: tuple[int, int], line: list[str], font: ImageFont.FreeTypeFont, wide: int, ragged: bool
    ) -> None:
        lengths = [font.getlength(word) for word in line]
        space = font.getlength(" ")
        if not ragged and len(line) > 1:
            space = max(space, (wide - sum(lengths)) / (len(line) - 1))
        x = float(at[0])
        for word, long in zip(line, lengths, strict=True):
            if x + long > at[0] + wide + 1:  # a word longer than the column
                break
            self.draw.text((x, at[1]), word, font=font, fill=self.ink)
            x += long + space

    def _figure(self, box: Pixels) -> None:
        """A landscape in flat tones with a little grain, or a chart."""
        wide, tall = box[2] - box[0], box[3] - box[1]
        if self.rng.random() < 0.55:
            self.page.paste(Image.fromarray(self._landscape(wide, tall)), box[:2])
            return
        self.draw.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill=(244, 244, 241), outline=self.ink)
        colour = tuple(int(v) for v in self.rng.integers(40, 180, 3))
        n = int(self.rng.integers(4, 9))
        heights = self.rng.uniform(0.15, 0.9, n) * tall
        xs = box[0] + (np.arange(n) + 0.5) * wide / n
        if self.rng.random() < 0.5:
            for x, h in zip(xs, heights, strict=True):
                half = max(1.0, wide / n * 0.3)
                self.draw.rectangle([x - half, box[3] - 1 - h, x + half, box[3] - 1], fill=colour)
        else:
            line = [(float(x), float(box[3] - 1 - h)) for x, h in zip(xs, heights, strict=True)]
            self.draw.line(line, fill=colour, width=max(1, tall // 60))

    def _landscape(self, wide: int, tall: int) -> np.ndarray:
        rng = self.rng
        y, x = np.mgrid[0:tall, 0:wide].astype(np.float32)
        y, x = y / max(tall, 1), x / max(wide, 1)
        sky, far, near = (rng.uniform(low, high, 3) for low, high in ((150, 235), (80, 150), (40, 120)))
        hills = 0.5 + 0.12 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.6) + rng.uniform()))
        front = 0.75 + 0.06 * np.sin(2 * np.pi * (x * rng.uniform(0.5, 1.2) + rng.uniform()))
        picture = np.where(
            (y > front)[..., None],
            near,
            np.where((y > hills)[..., None], far, sky * (0.8 + 0.2 * y)[..., None]),
        )
        sun = ((x - rng.uniform(0.2, 0.8)) * wide / max(tall, 1)) ** 2 + (y - 0.2) ** 2 < 0.004
        picture = np.where((sun & (y < hills))[..., None], (250, 244, 214), picture)
        return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)

    def _table(self, box: Pixels) -> None:
        """Ruled rows of numbers under a bold head."""
        wide, tall = box[2] - box[0], box[3] - box[1]
        step = max(3, round(self.body * 1.6))
        rows, columns = max(1, tall // step), max(2, min(7, wide // max(1, self.body * 6)))
        for edge in (box[1], box[1] + step, box[3] - 1):
            self.draw.line([(box[0], edge), (box[2] - 1, edge)], fill=self.ink)
        for row in range(rows):
            for column in range(columns):
                left = box[0] + column * wide // columns + 2
                top = box[1] + row * step + max(1, step // 6)
                cell = (
                    left,
                    top,
                    box[0] + (column + 1) * wide // columns - 2,
                    min(box[3], top + self.body + 2),
                )
                if cell[2] <= cell[0] or cell[3] <= cell[1]:
                    continue
                text = (
                    prose.headline(self.rng).split()[1]
                    if row == 0 or column == 0
                    else f"{self.rng.uniform(0, 100):.1f}"
                )
                self._line(cell, text, f"{self.face}-Bold" if row == 0 else self.face, self.body)

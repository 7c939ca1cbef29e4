"""Pages set in fonts: a layout filled with titles, columns of text, pictures, tables, captions and rules.

The fonts are DejaVu, which come with matplotlib; the words are the project's own (typeset.yaml). Where
letters would be too small to read, lines of text are greeked: grey bars as long as words.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.page_layout import Block, jitter
from fakevlm.data.records import encode

LONG_SIDE = 1024  # pixels of a page
TEXT = 0.0125  # height of running text, as a fraction of the page's height
LEGIBLE = 6  # pixels: below this size of type, text is greeked
_LEADING = 1.3
_LETTER = 0.55  # width of an average letter, as a fraction of the type's size
_NOTES = ["footnote", "endnote", "table note", "marginal note", "supplementary note", "reference", "credit"]
_PARTS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
Pixels = tuple[int, int, int, int]


class FontRenderer:
    """Renderer of documents (`collect.renderer: fonts`): real text in real fonts; no flaws are known."""

    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, None]:
        longest = max(page.width, page.height)
        size = tuple(max(1, round(side * LONG_SIDE / longest)) for side in (page.width, page.height))
        picture = render_page(jitter(page.layout, rng), rng, size=size)
        return encode(picture, "JPEG", quality=int(rng.integers(80, 96))), None


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def render_page(layout: Sequence[Block], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Return the page as an RGB image of `size` (width, height); later blocks are drawn over earlier ones."""
    paper = tuple(int(v) for v in np.array([252, 251, 247]) - rng.integers(0, 14))
    page = Image.new("RGB", size, paper)
    typesetter = _Typesetter(page, rng)
    for block in layout:
        box = tuple(round(v * side) for v, side in zip(block.box, size * 2, strict=True))
        if box[2] > box[0] and box[3] > box[1]:
            typesetter.set(block, box)
    return page


class _Typesetter:
    """Draws blocks on one page, all in one typeface and one ink. Boxes are left, top, right, bottom."""

    def __init__(self, page: Image.Image, rng: np.random.Generator) -> None:
        self.page, self.rng = page, rng
        self.draw = ImageDraw.Draw(page)
        self.face = "DejaVuSerif" if rng.random() < 0.6 else "DejaVuSans"
        grey = int(rng.integers(10, 50))
        self.ink = (grey, grey, grey + 4)
        self.body = max(1, round(page.height * TEXT))
        self.number = int(rng.integers(1, 200))

    def set(self, block: Block, box: Pixels) -> None:
        """Fill one block, by M6Doc's finer class if that is set in a way of its own, else by its kind."""
        left, top, right, bottom = box
        match block.name, block.kind:
            case "blank", _:
                pass
            case "unordered list" | "ordered list", _:
                self._list(box, numbered=block.name == "ordered list")
            case "formula", _:
                self._formula(box)
            case "algorithm" | "code", _:
                self._code(box)
            case "drop cap", _:
                size = min(bottom - top, round((right - left) * 1.2))
                capital = self._headline()[0]
                self._line((left, top, left + 2 * size, top + size), capital, f"{self.face}-Bold", size)
            case "qr code" | "barcode", _:
                self._modules(box, square=block.name == "qr code")
            case name, _ if name in _NOTES:
                self._column(box, max(1, round(self.body * 0.8)), self.face)
            case _, "title":
                self._title(box)
            case _, "figure":
                self._figure(box)
            case _, "table":
                self._table(box)
            case _, "rule":
                middle, width = (top + bottom) // 2, max(1, self.page.height // 700)
                self.draw.line([(left, middle), (right, middle)], fill=self.ink, width=width)
            case _, "footer":
                self._line(box, str(self.number), self.face, self.body)
            case _, "header":
                self._line(box, self._headline(), self.face, self.body)
            case _, "caption":
                self._column(box, max(1, round(self.body * 0.85)), f"{self.face}-Bold", opening="Figure")
            case _:
                self._column(box, self.body, self.face)

    def _phrase(self, *parts: str) -> str:
        text = " ".join(_PARTS[part][int(self.rng.integers(len(_PARTS[part])))] for part in parts)
        return text[0].upper() + text[1:]

    def _headline(self) -> str:
        return self._phrase("who", "did", "what")

    def _words(self, n: int) -> list[str]:
        """Return running text of `n` words."""
        text: list[str] = []
        while len(text) < n:
            text += f"{self._phrase('who', 'did', 'what', 'how')}.".split()
            if self.rng.random() < 0.3:
                text += self._phrase("then").split()
        return text[:n]

    def _rows(self, box: Pixels) -> list[tuple[int, int]]:
        """Return top and bottom of the block's lines of body text."""
        step = max(2, round(self.body * _LEADING))
        tops = range(box[1], max(box[1] + 1, box[3] - self.body), step)
        return [(top, min(box[3], top + step)) for top in tops]

    def _list(self, box: Pixels, numbered: bool) -> None:
        """Draw items of one line each behind bullets or numbers."""
        inner = box[0] + round(self.body * 1.8)
        for n, (top, bottom) in enumerate(self._rows(box), 1):
            self._line((box[0], top, inner, bottom), f"{n}." if numbered else "•", self.face, self.body)
            if inner < box[2]:
                self._line((inner, top, box[2], bottom), " ".join(self._words(12)), self.face, self.body)

    def _formula(self, box: Pixels) -> None:
        """Draw a sum or fraction on one line, in the middle of the block."""
        x, y, z = self.rng.permutation(list("abcmnpqrstuvxyz"))[:3]
        n, m = self.rng.integers(2, 10, 2)
        forms = [f"{x} = {n}{y}² + {m}{z}", f"{x}({y}) = ∑ {n}{z} / {m}"]
        forms += [f"∫ {x} d{y} ≤ {n} √{z}", f"{x} ± {m}{y} ≈ {z} ∂{n}"]
        face, size = "DejaVuSerif-Italic", min(self.body, box[3] - box[1])
        text = forms[int(self.rng.integers(len(forms)))]
        width = _font(face, size).getlength(text) if size >= LEGIBLE else len(text) * size * _LETTER
        left, top = box[0] + max(0, round((box[2] - box[0] - width) / 2)), (box[1] + box[3] - size) // 2
        self._line((left, top, box[2], max(top + size, box[3])), text, face, size)

    def _code(self, box: Pixels) -> None:
        """Draw lines of typewriter type, indented by turns."""
        depth = 0
        for top, bottom in self._rows(box):
            word = self._words(9)[int(self.rng.integers(9))].strip(".'").lower()
            loop = self.rng.random() < 0.3
            text = f"for {word} in range({self.rng.integers(2, 99)}):" if loop else f"{word} = {word}(x)"
            left = min(box[0] + round(depth * 1.2 * self.body), box[2] - 1)
            self._line((left, top, box[2], bottom), text, "DejaVuSansMono", self.body)
            depth = min(3, depth + 1) if loop else max(0, depth - int(self.rng.integers(2)))

    def _modules(self, box: Pixels, square: bool) -> None:
        """Draw black and white modules: a square with three finders (a QR code), or bars."""
        width, height = box[2] - box[0], box[3] - box[1]
        dark = self.rng.random((21, 21) if square else (1, 60)) < 0.5
        if square:
            finder = np.pad(np.pad(np.ones((3, 3), bool), 1), 1, constant_values=True)
            for y, x in ((0, 0), (0, 14), (14, 0)):
                dark[y : y + 7, x : x + 7] = finder
        size = (min(width, height),) * 2 if square else (width, height)
        picture = Image.fromarray(np.where(dark, 20, 250).astype(np.uint8))
        self.page.paste(picture.resize(size, Image.Resampling.NEAREST).convert("RGB"), box[:2])

    def _greeked(self, box: Pixels, size: int, lengths: Sequence[int]) -> None:
        """Draw bars for words: one row in the box's upper `size` pixels, lengths in average letters."""
        x, tone = box[0], tuple(int(0.5 * i + 0.5 * 200) for i in self.ink)
        low = min(box[3] - 1, box[1] + max(0, round(size * 0.6) - 1))
        for letters in lengths:
            width = max(1, round(letters * size * _LETTER))
            if x + width > box[2]:
                break
            self.draw.rectangle([x, box[1], x + width - 1, low], fill=tone)
            x += width + max(1, round(size * 0.4))

    def _line(self, box: Pixels, text: str, face: str, size: int) -> None:
        """Draw as many of the words as fit into one line."""
        size = min(size, box[3] - box[1])
        if size < LEGIBLE:
            self._greeked(box, size, [len(word) for word in text.split()])
            return
        font = _font(face, size)
        while font.getlength(text) > box[2] - box[0] and " " in text:
            text = text.rsplit(" ", 1)[0]
        self.draw.text(box[:2], text, font=font, fill=self.ink)

    def _wrap(self, words: Sequence[str], font: ImageFont.FreeTypeFont, width: int) -> list[list[str]]:
        lines: list[list[str]] = [[]]
        for word in words:
            if lines[-1] and font.getlength(" ".join([*lines[-1], word])) > width:
                lines.append([])
            lines[-1].append(word)
        return lines

    def _title(self, box: Pixels) -> None:
        """Draw a headline in the largest type with which it fills the block without leaving it."""
        words = self._headline().split()
        height, width = box[3] - box[1], box[2] - box[0]
        for size in range(min(height, round(self.page.height * 0.06)), 0, -1):
            if size < LEGIBLE:
                self._greeked(box, size, [len(word) for word in words])
                return
            font = _font(f"{self.face}-Bold", size)
            lines = [" ".join(line) for line in self._wrap(words, font, width)]
            fits = max(font.getlength(line) for line in lines) <= width
            if fits and len(lines) * size * 1.2 <= height + 0.2 * size:
                for n, line in enumerate(lines):
                    self.draw.text((box[0], box[1] + round(n * size * 1.2)), line, font=font, fill=self.ink)
                return

    def _column(self, box: Pixels, size: int, face: str, opening: str = "") -> None:
        """Draw justified text from the block's top to its bottom."""
        left, top, right, bottom = box
        size = min(size, bottom - top)
        step = max(2, round(size * _LEADING))
        tops = range(top, top + step * max(1, (bottom - top - size) // step + 1), step)
        if size < LEGIBLE:
            for y in tops:
                lengths = self.rng.integers(2, 10, 60).tolist()
                self._greeked((left, y, right, min(bottom, y + step)), size, lengths)
            return
        font, width = _font(face, size), right - left
        letters = max(4.0, width / (size * _LETTER))
        words = self._words(round(len(tops) * letters / 4) + 8)
        words = [opening, f"{int(self.rng.integers(1, 9))}:", *words] if opening else words
        lines = self._wrap(words, font, width)[: len(tops)]
        for y, line in zip(tops, lines, strict=False):
            lengths, space, x = [font.getlength(word) for word in line], font.getlength(" "), float(left)
            if line is not lines[-1] and not opening and len(line) > 1:
                space = max(space, (width - sum(lengths)) / (len(line) - 1))
            for word, length in zip(line, lengths, strict=True):
                if x + length > right + 1:  # a word longer than the column
                    break
                self.draw.text((x, y), word, font=font, fill=self.ink)
                x += length + space

    def _figure(self, box: Pixels) -> None:
        """Draw a landscape in flat tones with a little grain, or a chart."""
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        if self.rng.random() < 0.55:
            self.page.paste(Image.fromarray(self._landscape(width, height)), box[:2])
            return
        self.draw.rectangle([left, top, right - 1, bottom - 1], fill=(244, 244, 241), outline=self.ink)
        colour = tuple(int(v) for v in self.rng.integers(40, 180, 3))
        n = int(self.rng.integers(4, 9))
        ys = bottom - 1 - self.rng.uniform(0.15, 0.9, n) * height
        xs = left + (np.arange(n) + 0.5) * width / n
        points = list(zip(xs.tolist(), ys.tolist(), strict=True))
        if self.rng.random() < 0.5:
            half = max(1.0, width / n * 0.3)
            for x, y in points:
                self.draw.rectangle([x - half, y, x + half, bottom - 1], fill=colour)
        else:
            self.draw.line(points, fill=colour, width=max(1, height // 60))

    def _landscape(self, width: int, height: int) -> np.ndarray:
        rng = self.rng
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        y, x = y / max(height, 1), x / max(width, 1)
        sky, far, near = (rng.uniform(low, high, 3) for low, high in ((150, 235), (80, 150), (40, 120)))
        hills = 0.5 + 0.12 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.6) + rng.uniform()))
        front = 0.75 + 0.06 * np.sin(2 * np.pi * (x * rng.uniform(0.5, 1.2) + rng.uniform()))
        picture = np.where((y > hills)[..., None], far, sky * (0.8 + 0.2 * y)[..., None])
        picture = np.where((y > front)[..., None], near, picture)
        sun = ((x - rng.uniform(0.2, 0.8)) * width / max(height, 1)) ** 2 + (y - 0.2) ** 2 < 0.004
        picture = np.where((sun & (y < hills))[..., None], (250, 244, 214), picture)
        return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)

    def _table(self, box: Pixels) -> None:
        """Draw ruled rows of numbers under a bold head."""
        left, top, right, bottom = box
        width, step = right - left, max(3, round(self.body * 1.6))
        columns = max(2, min(7, width // max(1, self.body * 6)))
        for edge in (top, top + step, bottom - 1):
            self.draw.line([(left, edge), (right - 1, edge)], fill=self.ink)
        for row in range(max(1, (bottom - top) // step)):
            face, y = f"{self.face}-Bold" if row == 0 else self.face, top + row * step + max(1, step // 6)
            for column in range(columns):
                x, end = (left + k * width // columns for k in (column, column + 1))
                cell = (x + 2, y, end - 2, min(bottom, y + self.body + 2))
                if cell[2] > cell[0] and cell[3] > cell[1]:
                    label = row == 0 or column == 0
                    text = self._headline().split()[1] if label else f"{self.rng.uniform(0, 100):.1f}"
                    self._line(cell, text, face, self.body)

"""Brief and set: what a scene draws from, and what it leaves behind."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from miniworld.canvas import Canvas, Colour, Part, Point

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Style:
    """The look of a corpus: palette, light, camera. Benchmarks differ from FakeClue-mini, as real ones do."""

    hue: float = 0.0  # added to every hue (0..1)
    saturation: float = 1.0  # factors on colours
    value: float = 1.0
    scale: tuple[float, float] = (0.85, 1.1)  # range of the subject's size
    grain: tuple[float, float] = (2.0, 7.0)  # ranges of noise sigma (grey levels),
    jpeg: tuple[int, int] = (72, 95)  # JPEG quality
    blur: tuple[float, float] = (0.0, 0.55)  # and lens blur (pixels)
    night: float = 0.06  # probability of a dark exposure


STYLES = {
    "fakeclue": Style(),
    "video": Style(grain=(2.0, 4.5)),
    "loki": Style(0.08, 1.2, 0.94, scale=(0.75, 1.0), grain=(1.5, 8.0), night=0.15),
    "dmimage": Style(-0.06, 0.8, 1.04, scale=(0.9, 1.2), jpeg=(65, 92)),
}


@dataclass
class Brief:
    """What a scene has to draw, and where its flaws can be seen once it is drawn."""

    rng: np.random.Generator
    style: Style
    flaws: dict[str, float]  # strength of each flaw to draw: extra_part, bent, asymmetry, shadow, garble
    light: int  # −1 from the left, +1 from the right; always somewhat from above
    variant: str | None = None  # kind of subject; None draws one by lot
    layout: list | None = None  # blocks of a page
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of a face in a video: dx, dy, mouth opening
    flawed: dict[str, Box] = field(default_factory=dict)  # filled while drawing: where each flaw can be seen

    def colour(self, hue: tuple[float, float], sat: tuple[float, float], val: tuple[float, float]) -> Colour:
        """Return a random colour (RGB in 0..255) in HSV ranges, in the style's palette."""
        style = self.style
        h, s, v = (self.rng.uniform(*r) for r in (hue, sat, val))
        h, s, v = (h + style.hue) % 1.0, min(1.0, s * style.saturation), min(1.0, v * style.value)
        r, g, b = colorsys.hsv_to_rgb(h, s, v)
        return 255 * r, 255 * g, 255 * b

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def integer(self, *bounds: int) -> int:
        return int(self.rng.integers(*bounds))

    def scale(self) -> float:
        return self.uniform(*self.style.scale)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def side(self) -> int:
        """Return −1 or 1 by lot."""
        return -1 if self.chance(0.5) else 1

    def pick(self, *options: str) -> str:
        """Return one of the options, or the wanted variant."""
        chosen = pick(self.rng, options)
        return self.variant if self.variant in options else chosen

    def bend(self, p: Point, q: Point, pad: float = 0.07, *, here: bool = True) -> list[Point]:
        """Return the line from p to q: straight, or waved if the flaw `bent` is to be drawn `here`."""
        if "bent" not in self.flaws or not here:
            return [p, q]
        self.flawed["bent"] = box(p, q, pad=pad)
        t = np.linspace(0, 1, 18)
        start = np.array(p)
        along = np.array(q) - start
        length = float(np.hypot(*along)) + 1e-6
        normal = np.array([-along[1], along[0]]) / length
        waves = self.uniform(1.0, 1.6)
        amplitude = (0.06 + 0.04 * self.flaws["bent"]) * min(1.0, length / 0.4 + 0.35)
        wave = np.sin(2 * np.pi * waves * t + self.uniform(0, 6.28)) * amplitude
        return [(float(x), float(y)) for x, y in start + t[:, None] * along + wave[:, None] * normal]

    def cast_shadow(self, c: Canvas, x: float, y: float, rx: float) -> None:
        """Draw a shadow on the ground beside (x, y), away from the light (towards it if that is the flaw)."""
        side = self.light if "shadow" in self.flaws else -self.light
        cx, wide, tall = x + side * rx * 1.25, rx * 1.2, 0.042
        c.ellipse(cx, y, wide, tall, c.shadow(x, y), Part.SHADOW)
        if "shadow" in self.flaws:
            self.flawed["shadow"] = box((cx - wide, y - tall), (cx + wide, y + tall))

    def write(
        self, c: Canvas, x0: float, x1: float, y: float, height: float, ink: Colour, part: Part = Part.TEXT
    ) -> None:
        """Draw a row of writing too small to read: words as bars on one baseline, y its middle."""
        x = x0
        while x < x1 - 0.012:
            word = min(self.uniform(0.03, 0.085), x1 - x)
            c.rect(x, y - height / 2, x + word, y + height / 2, ink, part)
            x += word + 0.016

    def scribble(self, c: Canvas, x0: float, x1: float, y: float, height: float, ink: Colour) -> None:
        """Draw a garbled row: loops that leave the baseline, with blots of uneven size."""
        n = max(8, int((x1 - x0) / 0.011))
        ys = y + self.rng.uniform(-1, 1, n) * height * 1.5
        xs = x0 + np.linspace(0, 1, n) * (x1 - x0) + self.rng.uniform(-0.008, 0.008, n)
        c.line(np.stack([xs, ys], 1), 0.009, ink, Part.TEXT)
        for _ in range(max(1, int((x1 - x0) / 0.12))):
            r = self.uniform(0.5, 1.1) * height
            x, dy = self.uniform(x0, x1), self.uniform(-0.4, 0.4) * height
            c.ellipse(x, y + dy, r, r * 0.8, ink, Part.TEXT)


@dataclass
class Set:
    """What a scene leaves behind."""

    subject: tuple[Part, ...]  # parts that make it up (for masks and shading)
    centre: tuple[float, float, float, float]  # the subject's middle and half extent, x, y, rx, ry
    anchors: dict[str, Box] = field(default_factory=dict)  # where artifacts sit that are put in afterwards
    facts: dict[str, str] = field(default_factory=dict)  # neutral, for descriptions (`legs`, `subject` …)
    paper: bool = False  # a flat sheet rather than a lit scene (no shading by direction)


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Return one of the options by lot."""
    return options[int(rng.integers(len(options)))]


def box(*points: Point, pad: float = 0.03) -> Box:
    """Return the box around points, padded and clipped to the image."""
    xs, ys = zip(*points, strict=True)
    return max(0.0, min(xs) - pad), max(0.0, min(ys) - pad), min(1.0, max(xs) + pad), min(1.0, max(ys) + pad)


def backdrop(c: Canvas, brief: Brief, horizon: float) -> None:
    """Draw sky or wall above the horizon, ground or floor below."""
    if brief.chance(0.6):  # outdoors
        top = brief.colour((0.53, 0.63), (0.15, 0.55), (0.65, 0.95))
        ground = brief.colour((0.08, 0.35), (0.2, 0.55), (0.4, 0.75))
    else:  # indoors
        top = brief.colour((0.0, 1.0), (0.05, 0.3), (0.55, 0.85))
        ground = brief.colour((0.04, 0.12), (0.2, 0.5), (0.4, 0.7))
    low = tuple(min(255.0, v * brief.uniform(0.95, 1.15)) for v in top)
    c.gradient(top, low, 0, horizon, Part.SKY)
    far = tuple(v * brief.uniform(0.9, 1.0) for v in ground)
    near = tuple(min(255.0, v * brief.uniform(1.0, 1.12)) for v in ground)
    c.gradient(far, near, horizon, 1, Part.GROUND)

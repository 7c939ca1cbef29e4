"""What a scene is told and what it tells back: the brief that scenes draw from, and the set they leave behind."""

from dataclasses import dataclass, field

import numpy as np

from miniworld.canvas import Canvas, Colour, Part, hsv

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Style:
    """The look of a corpus: palette, light, camera. Benchmarks differ from FakeClue-mini here, as the real ones do.

    Attributes:
        hue: added to every hue (0..1).
        saturation, value: factors on colours.
        scale: range of the subject's size.
        grain, jpeg, blur: ranges of the camera's noise sigma (grey levels), JPEG quality and lens blur (pixels).
        night: chance of a dark exposure.
    """

    name: str
    hue: float = 0.0
    saturation: float = 1.0
    value: float = 1.0
    scale: tuple[float, float] = (0.85, 1.1)
    grain: tuple[float, float] = (2.0, 7.0)
    jpeg: tuple[int, int] = (72, 95)
    blur: tuple[float, float] = (0.0, 0.55)
    night: float = 0.06


STYLES = {
    style.name: style
    for style in (
        Style("fakeclue"),
        Style("loki", hue=0.08, saturation=1.2, value=0.94, scale=(0.75, 1.0), grain=(1.5, 8.0), night=0.15),
        Style("dmimage", hue=-0.06, saturation=0.8, value=1.04, scale=(0.9, 1.2), jpeg=(65, 92)),
    )
}


@dataclass
class Brief:
    """What a scene is asked to draw.

    Attributes:
        flaws: strength of each flaw that is made while drawing (`extra_part`, `bent`, `asymmetry`, `shadow`, `garble`).
        light: −1 light from the left, +1 from the right; always somewhat from above.
        variant: the kind of subject, where the caller wants a certain one.
    """

    rng: np.random.Generator
    style: Style
    flaws: dict[str, float] = field(default_factory=dict)
    light: int = 1
    variant: str | None = None
    layout: list | None = None

    def colour(self, hue: tuple[float, float], sat: tuple[float, float], val: tuple[float, float]) -> Colour:
        """A random colour in HSV ranges, seen through the style's palette."""
        h, s, v = (self.rng.uniform(*r) for r in (hue, sat, val))
        return hsv(h + self.style.hue, min(1.0, s * self.style.saturation), min(1.0, v * self.style.value))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def pick(self, *options: str) -> str:
        """One of the options, or the variant asked for."""
        chosen = options[int(self.rng.integers(len(options)))]
        return self.variant if self.variant in options else chosen

    def shadow_side(self) -> int:
        """The side a cast shadow falls to: away from the light, or towards it if that is the flaw."""
        return self.light if "shadow" in self.flaws else -self.light


@dataclass
class Set:
    """What a scene leaves behind.

    Attributes:
        subject: parts that make up the subject (for masks and shading).
        centre: the subject's middle and half extent, (x, y, rx, ry).
        flawed: for each flaw made while drawing, the box where it can be seen.
        anchors: named boxes on the subject where post-hoc artifacts like to sit (eyes, mouth, a wall …).
        texture: per part, (fine, streak) amplitudes in grey levels.
        facts: neutral facts for descriptions (`legs`, `lines`, `subject` …).
        paper: a flat sheet rather than a lit scene (no shading by direction).
    """

    subject: tuple[Part, ...]
    centre: tuple[float, float, float, float]
    flawed: dict[str, Box] = field(default_factory=dict)
    anchors: dict[str, Box] = field(default_factory=dict)
    texture: dict[Part, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    paper: bool = False


def box(*points: tuple[float, float], pad: float = 0.03) -> Box:
    """The box around points, padded and clipped to the image."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return (
        max(0.0, min(xs) - pad),
        max(0.0, min(ys) - pad),
        min(1.0, max(xs) + pad),
        min(1.0, max(ys) + pad),
    )


def wavy(
    brief: Brief, p: tuple[float, float], q: tuple[float, float], flaw: str = "bent"
) -> list[tuple[float, float]]:
    """A straight line from p to q, or a bent one where that flaw is asked for (amplitude by its strength)."""
    if flaw not in brief.flaws:
        return [p, q]
    t = np.linspace(0, 1, 18)
    p_, q_ = np.array(p), np.array(q)
    along = q_ - p_
    length = float(np.hypot(*along)) + 1e-6
    normal = np.array([-along[1], along[0]]) / length
    waves = brief.uniform(1.0, 1.6)
    amplitude = (0.06 + 0.04 * brief.flaws[flaw]) * min(1.0, length / 0.4 + 0.35)
    wave = np.sin(2 * np.pi * waves * t + brief.uniform(0, 6.28)) * amplitude
    pts = p_ + t[:, None] * along + wave[:, None] * normal
    return [(float(x), float(y)) for x, y in pts]


def backdrop(c: Canvas, brief: Brief, horizon: float) -> None:
    """Sky or wall above the horizon, ground or floor below."""
    if brief.rng.random() < 0.6:  # outdoors
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


def cast_shadow(c: Canvas, brief: Brief, x: float, y: float, rx: float, ry: float = 0.042) -> Box:
    """A shadow on the ground beside (x, y), drawn before what casts it; returns its box."""
    side = brief.shadow_side()
    px = min(max(int(x * c.n), 0), c.n - 1)
    py = min(max(int(y * c.n), 0), c.n - 1)
    ground = tuple(float(v) * 0.42 for v in c.rgb[py, px])
    cx = x + side * rx * 1.25
    c.ellipse(cx, y, rx * 1.2, ry, ground, Part.SHADOW)
    return box((cx - rx * 1.2, y - ry), (cx + rx * 1.2, y + ry))

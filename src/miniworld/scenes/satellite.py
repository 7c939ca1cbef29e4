"""The ground from above: fields, roads, houses with shadows, trees, a river."""

import itertools

import numpy as np

from miniworld.canvas import Canvas, Part, Point, shade
from miniworld.stagecraft import Brief, Set, box

_BLOCKS = {"urban": (0.27, 3), "suburban": (0.36, 2), "natural": (0.5, 1)}  # side, most houses


def draw(c: Canvas, brief: Brief) -> Set:
    """Draw an aerial view (urban, suburban or natural).

    Flaws: a bent road among straight ones, house shadows on the wrong side.
    """
    u = brief.uniform
    kind = brief.pick(*_BLOCKS)
    step, most = _BLOCKS[kind]
    c.fill(brief.colour((0.18, 0.35), (0.2, 0.5), (0.35, 0.6)), Part.FIELD)
    turn = np.deg2rad(u(-18, 18))
    cos, sin = np.cos(turn), np.sin(turn)

    def at(a: float, b: float) -> Point:
        """Return the image's coordinates of a point of the street grid, which is turned about the middle."""
        x, y = a - 0.5, b - 0.5
        return float(0.5 + cos * x - sin * y), float(0.5 + sin * x + cos * y)

    def rectangle(a0: float, b0: float, a1: float, b1: float) -> list[Point]:
        return [at(a0, b0), at(a1, b0), at(a1, b1), at(a0, b1)]

    lines = np.arange(-0.3 + u(0, step), 1.35, step).tolist()
    hue = (0.12, 0.38), (0.2, 0.55), (0.35, 0.7)
    if kind == "urban":
        hue = (0.1, 0.2), (0.05, 0.2), (0.45, 0.65)
    for i, j in itertools.product(lines, lines):
        c.poly(rectangle(i, j, i + step, j + step), brief.colour(*hue), Part.FIELD)
    if kind == "natural" and brief.chance(0.6):
        xs = np.linspace(-0.1, 1.1, 14)
        ys = u(0.25, 0.75) + 0.1 * np.sin(xs * u(3, 7) + u(0, 6))
        width, water = u(0.05, 0.09), brief.colour((0.5, 0.6), (0.3, 0.6), (0.3, 0.6))
        c.line(np.stack([xs, ys], 1), width, water, Part.WATER)
    asphalt = brief.colour((0.5, 0.7), (0.0, 0.08), (0.5, 0.78))
    inside = [v for v in lines if 0.15 < v < 0.85] or [0.5]
    warped = (brief.integer(2), inside[brief.integer(len(inside))]) if "bent" in brief.flaws else None
    winding: list[Point] = []
    for axis, v in itertools.product((0, 1), lines):
        bent = warped == (axis, v)
        p, q = (at(v, end) if axis else at(end, v) for end in ((0.05, 0.95) if bent else (-0.3, 1.3)))
        if bent:
            winding = brief.bend(p, q, 0.08)  # drawn last: houses would hide where it winds
        else:
            c.line([p, q], 0.045, asphalt, Part.ROAD)
    houses: list[tuple[float, float, float, float]] = []
    for i, j, _ in itertools.product(lines, lines, range(most)):
        if brief.chance(0.75):
            a, b = i + u(0.2, 0.8) * step, j + u(0.22, 0.78) * step
            x, y = at(a, b)
            free = all(abs(x - h[0]) + abs(y - h[1]) > 0.14 for h in houses)
            if 0.06 < x < 0.94 and 0.06 < y < 0.94 and free:
                houses.append((x, y, a, b))
    wrong: list[int] = []
    if "shadow" in brief.flaws and houses:
        n = min(len(houses), 1 + brief.integer(1, 3))
        wrong = brief.rng.choice(len(houses), n, replace=False).tolist()
    off: list[Point] = []
    for n, (_, _, a, b) in enumerate(houses):
        w, h = u(0.04, 0.065), u(0.035, 0.055)
        corners = rectangle(a - w, b - h, a + w, b + h)
        dx, dy = (brief.light if n in wrong else -brief.light) * 0.062, 0.03
        c.poly([(px + dx, py + dy) for px, py in corners], (38, 42, 40), Part.SHADOW)
        c.poly(corners, brief.colour((0.0, 0.1), (0.1, 0.6), (0.5, 0.92)), Part.ROOF)
        c.line([at(a - w, b), at(a + w, b)], 0.012, (70, 55, 50), Part.ROOF)
        if n in wrong:
            off += corners
            brief.flawed["shadow"] = box(*off, pad=0.05)
    if winding:
        c.line(winding, 0.05, asphalt, Part.ROAD)
    leaf = brief.colour((0.25, 0.38), (0.4, 0.7), (0.2, 0.42))
    for _ in range(brief.integer(6, 18)):
        x, y, r = u(0.03, 0.97), u(0.03, 0.97), u(0.012, 0.026)
        c.ellipse(x - brief.light * 0.02, y + 0.01, r, r, (40, 44, 38), Part.SHADOW)
        c.ellipse(x, y, r, r, shade(leaf, u(0.8, 1.2)), Part.TREE)
    parts, facts = (Part.FIELD, Part.ROAD, Part.ROOF), {"subject": kind, "houses": str(len(houses))}
    return Set(parts, (0.5, 0.5, 0.45, 0.45), {"block": (0.2, 0.2, 0.8, 0.8)}, facts, paper=True)

"""Places: a street of houses, open country with mountains, trees and a fence, and the ground from above."""

import itertools

import numpy as np

from miniworld.canvas import Canvas, Part, Point, shade
from miniworld.stagecraft import Brief, Set, backdrop, box

_BLOCKS = {"urban": (0.27, 3), "suburban": (0.36, 2), "natural": (0.5, 1)}  # side, most houses


def draw_scene(c: Canvas, brief: Brief) -> Set:
    """Draw a street or open country. Flaws: a bent pole, eave or fence; shadows that fall both ways."""
    return _street(c, brief) if brief.pick("street", "country") == "street" else _country(c, brief)


def _sides(brief: Brief, n: int) -> list[int]:
    """Return the side that each of n shadows falls to; one falls towards the light if that is the flaw."""
    sides = [-brief.light] * n
    if "shadow" in brief.flaws:
        sides[brief.integer(n)] = brief.light
    return sides


def _ground_shadow(c: Canvas, brief: Brief, x: float, y: float, reach: float, side: int) -> None:
    tip, dark = (x + side * (reach + 0.045), y + 0.055), c.shadow(x, y, below=2)
    c.poly([(x - 0.02, y), (x + 0.02, y), (x + side * reach, y + 0.075), tip], dark, Part.SHADOW)
    if side == brief.light:
        brief.flawed["shadow"] = box((x, y), (tip[0], y + 0.075))


def _street(c: Canvas, brief: Brief) -> Set:
    u = brief.uniform
    horizon = u(0.55, 0.68)
    backdrop(c, brief, horizon)
    x = u(-0.06, 0.03)
    houses = []
    while x < 0.98:
        w, h = u(0.2, 0.32), u(0.2, 0.38) * brief.scale()
        houses.append((x, horizon - h, x + w, horizon + 0.06))
        x += w + u(0.0, 0.05)
    bad = brief.integer(len(houses)) if "bent" in brief.flaws and brief.chance(0.4) else -1
    for n, (x0, y0, x1, y1) in enumerate(houses):
        wall = brief.colour((0.0, 0.18), (0.1, 0.55), (0.5, 0.92))
        c.rect(x0, y0, x1, y1, wall, Part.WALL)
        if brief.chance(0.7):
            gable = [(x0 - 0.01, y0), ((x0 + x1) / 2, y0 - u(0.07, 0.13)), (x1 + 0.01, y0)]
            c.poly(gable, brief.colour((0.0, 0.08), (0.3, 0.7), (0.3, 0.6)), Part.ROOF)
        rows, cols = brief.integer(2, 4), brief.integer(2, 4)
        pane = brief.colour((0.5, 0.65), (0.1, 0.5), (0.25, 0.6))
        for i, j in itertools.product(range(rows), range(cols)):
            wx, wy = x0 + (j + 0.5) * (x1 - x0) / cols, y0 + (i + 0.55) * (y1 - y0) / rows
            c.rect(wx - 0.022, wy - 0.026, wx + 0.022, wy + 0.026, pane, Part.OPENING)
        eave = y0 + 0.02
        if n == bad:
            p, q = (max(0.0, x0), eave), (min(1.0, x1), eave)
            c.line(brief.bend(p, q), 0.03, shade(wall, 0.45), Part.POLE)
        else:
            c.line([(x0, eave), (x1, eave)], 0.022, shade(wall, 0.5), Part.POLE)
    road = horizon + 0.06
    c.rect(0, road, 1, 1, brief.colour((0.5, 0.7), (0.0, 0.12), (0.35, 0.55)), Part.ROAD)
    for k in range(5):
        left, middle = 0.04 + k * 0.21, (road + 1) / 2
        c.rect(left, middle, 0.14 + k * 0.21, middle + 0.018, (225, 222, 205), Part.ROAD)
    poles = sorted(u(0.08, 0.92) for _ in range(brief.integer(2, 4)))
    warped = brief.integer(len(poles)) if "bent" in brief.flaws and bad < 0 else -1
    grey = (62, 60, 64)
    for n, (px, side) in enumerate(zip(poles, _sides(brief, len(poles)), strict=True)):
        _ground_shadow(c, brief, px, road + 0.03, 0.17, side)
        p, q = (px, road + 0.04), (px, horizon - u(0.34, 0.46))
        c.line(brief.bend(p, q, here=n == warped), 0.027, grey, Part.POLE)
        c.line([q, (q[0] + 0.06, q[1])], 0.02, grey, Part.POLE)
        c.ellipse(q[0] + 0.065, q[1] + 0.012, 0.02, 0.016, (250, 240, 190), Part.DETAIL)
    middle = houses[len(houses) // 2]
    anchors = {"house": box(middle[:2], middle[2:], pad=0)}
    parts = (Part.WALL, Part.ROOF, Part.OPENING)
    return Set(parts, (0.5, horizon - 0.1, 0.4, 0.22), anchors, {"subject": "street"})


def _country(c: Canvas, brief: Brief) -> Set:
    u = brief.uniform
    horizon = u(0.45, 0.58)
    backdrop(c, brief, horizon)
    for layer in range(2):
        far = 0.15 * (1 - layer)
        tone = brief.colour((0.3, 0.65), (0.1, 0.4), (0.35 + far, 0.6 + far))
        xs = np.linspace(-0.05, 1.05, brief.integer(5, 8))
        ys = horizon - brief.rng.uniform(0.04, 0.26 - 0.1 * layer, len(xs))
        ridge = zip(xs.tolist(), ys.tolist(), strict=True)
        c.poly([*ridge, (1.05, horizon + 0.01), (-0.05, horizon + 0.01)], tone, Part.MOUNTAIN)
    if brief.chance(0.45):
        y = u(0.66, 0.8)
        lake = (u(0.3, 0.7), y, u(0.2, 0.35), u(0.05, 0.09))
        c.ellipse(*lake, brief.colour((0.52, 0.6), (0.3, 0.6), (0.5, 0.85)), Part.WATER)
    spots = [(u(0.06, 0.94), u(0.56, 0.78)) for _ in range(brief.integer(3, 6))]
    trees = sorted(spots, key=lambda t: t[1])
    sides = _sides(brief, len(trees))
    leaf = brief.colour((0.2, 0.4), (0.35, 0.8), (0.25, 0.6))
    for n, (x, y) in enumerate(trees):
        size = (0.08 + (y - 0.5) * 0.22) * brief.scale()
        _ground_shadow(c, brief, x, y, size * 1.5, sides[n])
        c.line([(x, y), (x, y - size)], 0.024, (84, 58, 38), Part.TREE)
        green = shade(leaf, u(0.8, 1.15))
        if n % 2:
            low, wide = y - size * 0.7, size * 0.65
            c.poly([(x - wide, low), (x, y - size * 2.3), (x + wide, low)], green, Part.TREE)
        else:
            c.ellipse(x, y - size * 1.4, size * 0.65, size * 0.75, green, Part.TREE)
    rail = u(0.77, 0.84)
    wood = brief.colour((0.05, 0.12), (0.2, 0.6), (0.45, 0.9))
    for k, y in enumerate((rail, rail + 0.06)):
        c.line(brief.bend((0.0, y), (1.0, y), here=k == 0), 0.026, wood, Part.POLE)
    for k in range(7):
        post = 0.05 + k * 0.15
        c.line([(post, rail - 0.05), (post, rail + 0.11)], 0.026, shade(wood, 0.85), Part.POLE)
    if "bent" in brief.flaws:
        brief.flawed["bent"] = (0.0, rail - 0.1, 1.0, min(1.0, rail + 0.1))
    anchors = {"hills": (0.15, horizon - 0.2, 0.85, horizon)}
    return Set((Part.TREE, Part.MOUNTAIN), (0.5, 0.55, 0.42, 0.22), anchors, {"subject": "country"})


def draw_satellite(c: Canvas, brief: Brief) -> Set:
    """Draw an aerial view (urban, suburban, natural). Flaws: a bent road, house shadows on the wrong side."""
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

"""The ground from above: fields, roads, houses with shadows, trees, a river."""

import numpy as np

from miniworld.canvas import Canvas, Part, shade
from miniworld.stagecraft import Box, Brief, Set, box, wavy

FLAWS = ("bent", "shadow")


def draw(c: Canvas, brief: Brief) -> Set:
    """An aerial view (urban, suburban or natural). Flaws: a bent road among straight ones, a house shadow on the wrong side."""
    u = brief.uniform
    kind = brief.pick("urban", "suburban", "natural")
    flawed: dict[str, Box] = {}
    c.fill(brief.colour((0.18, 0.35), (0.2, 0.5), (0.35, 0.6)), Part.FIELD)
    turn = np.deg2rad(u(-18, 18))
    cos, sin = np.cos(turn), np.sin(turn)

    def at(a: float, b: float) -> tuple[float, float]:
        """From the street grid's coordinates (0..1, turned about the middle) to the image's."""
        x, y = a - 0.5, b - 0.5
        return float(0.5 + cos * x - sin * y), float(0.5 + sin * x + cos * y)

    step = {"urban": 0.27, "suburban": 0.36, "natural": 0.5}[kind]
    lines = np.arange(-0.3 + u(0, step), 1.35, step)
    for i in lines:
        for j in lines:
            tone = (
                brief.colour((0.12, 0.38), (0.2, 0.55), (0.35, 0.7))
                if kind != "urban"
                else brief.colour((0.1, 0.2), (0.05, 0.2), (0.45, 0.65))
            )
            c.poly([at(i, j), at(i + step, j), at(i + step, j + step), at(i, j + step)], tone, Part.FIELD)
    if kind == "natural" and brief.rng.random() < 0.6:
        xs = np.linspace(-0.1, 1.1, 14)
        ys = u(0.25, 0.75) + 0.1 * np.sin(xs * u(3, 7) + u(0, 6))
        c.line(
            list(zip(xs.tolist(), ys.tolist(), strict=True)),
            u(0.05, 0.09),
            brief.colour((0.5, 0.6), (0.3, 0.6), (0.3, 0.6)),
            Part.WATER,
        )
    asphalt = brief.colour((0.5, 0.7), (0.0, 0.08), (0.5, 0.78))
    inside = [float(v) for v in lines if 0.15 < v < 0.85] or [0.5]
    warped = (
        (int(brief.rng.integers(2)), inside[int(brief.rng.integers(len(inside)))])
        if "bent" in brief.flaws
        else None
    )
    winding: list[tuple[float, float]] = []
    for axis in (0, 1):
        for v in lines:
            p, q = (
                (at(float(v), -0.3), at(float(v), 1.3)) if axis else (at(-0.3, float(v)), at(1.3, float(v)))
            )
            if warped == (axis, float(v)):
                p, q = (
                    (at(float(v), 0.05), at(float(v), 0.95))
                    if axis
                    else (at(0.05, float(v)), at(0.95, float(v)))
                )
                winding = wavy(brief, p, q)  # drawn last: houses would hide where it winds
                flawed["bent"] = box(p, q, pad=0.08)
            else:
                c.line([p, q], 0.045, asphalt, Part.ROAD)
    houses = []
    for i in lines:
        for j in lines:
            for _ in range({"urban": 3, "suburban": 2, "natural": 1}[kind]):
                if brief.rng.random() < 0.75:
                    a, b = float(i) + u(0.2, 0.8) * step, float(j) + u(0.22, 0.78) * step
                    x, y = at(a, b)
                    if (
                        0.06 < x < 0.94
                        and 0.06 < y < 0.94
                        and all(abs(x - h[0]) + abs(y - h[1]) > 0.14 for h in houses)
                    ):
                        houses.append((x, y, a, b))
    wrong = set()
    if "shadow" in brief.flaws and houses:
        n = min(len(houses), 1 + int(brief.rng.integers(1, 3)))
        wrong = {int(v) for v in brief.rng.choice(len(houses), n, replace=False)}
    for n, (_, _, a, b) in enumerate(houses):
        w, h = u(0.04, 0.065), u(0.035, 0.055)
        corners = [at(a - w, b - h), at(a + w, b - h), at(a + w, b + h), at(a - w, b + h)]
        side = brief.light if n in wrong else -brief.light
        dx, dy = side * 0.062, 0.03
        c.poly([(px + dx, py + dy) for px, py in corners], (38, 42, 40), Part.SHADOW)
        c.poly(corners, brief.colour((0.0, 0.1), (0.1, 0.6), (0.5, 0.92)), Part.ROOF)
        c.line([at(a - w, b), at(a + w, b)], 0.012, (70, 55, 50), Part.ROOF)
        if n in wrong:
            area = box(*corners, pad=0.05)
            old = flawed.get("shadow", area)
            flawed["shadow"] = (
                min(old[0], area[0]),
                min(old[1], area[1]),
                max(old[2], area[2]),
                max(old[3], area[3]),
            )
    if winding:
        c.line(winding, 0.05, asphalt, Part.ROAD)
    leaf = brief.colour((0.25, 0.38), (0.4, 0.7), (0.2, 0.42))
    for _ in range(int(brief.rng.integers(6, 18))):
        x, y, r = u(0.03, 0.97), u(0.03, 0.97), u(0.012, 0.026)
        c.ellipse(x - brief.light * 0.02, y + 0.01, r, r, (40, 44, 38), Part.SHADOW)
        c.ellipse(x, y, r, r, shade(leaf, u(0.8, 1.2)), Part.TREE)
    return Set(
        (Part.FIELD, Part.ROAD, Part.ROOF),
        (0.5, 0.5, 0.45, 0.45),
        flawed,
        {"block": (0.2, 0.2, 0.8, 0.8)},
        {Part.FIELD: (7, 5), Part.ROAD: (4, 2), Part.ROOF: (4, 4), Part.TREE: (8, 0), Part.WATER: (3, 4)},
        {"subject": kind, "houses": str(len(houses))},
        paper=True,
    )

"""Man-made objects, one at a time: chairs, bottles, cars, lamps, shelves, signs."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.scenes import lettering
from miniworld.stagecraft import Box, Brief, Set, backdrop, box, cast_shadow, wavy

FLAWS = ("extra_part", "bent", "asymmetry", "shadow", "garble")
# which flaws each kind of object can show
CAN = {
    "chair": ("extra_part", "bent", "shadow"),
    "bottle": ("asymmetry", "garble", "shadow"),
    "car": ("extra_part", "asymmetry", "shadow"),
    "lamp": ("bent", "asymmetry", "shadow"),
    "shelf": ("bent", "garble"),
    "sign": ("bent", "garble", "shadow"),
}


def draw(c: Canvas, brief: Brief) -> Set:
    """An object. Flaws by kind: extra legs or wheels, bent edges, unequal halves, wrong shadow, garbled label."""
    wanted = set(brief.flaws)
    kinds = [kind for kind, flaws in CAN.items() if wanted <= set(flaws)] or list(CAN)
    kind = brief.pick(*kinds)
    backdrop(c, brief, brief.uniform(0.5, 0.68))
    s = brief.uniform(*brief.style.scale)
    x = brief.uniform(0.43, 0.57)
    result = _DRAW[kind](c, brief, x, s)
    result.facts["subject"] = kind
    result.texture |= {
        Part.THING: (6, 3),
        Part.DETAIL: (5, 2),
        Part.POLE: (5, 2),
        Part.GROUND: (6, 3),
        Part.SKY: (3, 0),
        Part.LABEL: (3, 0),
    }
    return result


def _chair(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    wood = brief.colour((0.03, 0.12), (0.3, 0.75), (0.35, 0.85))
    half, seat, foot = 0.17 * s, 0.56, 0.56 + 0.34 * s
    back = 0.56 - 0.38 * s
    shadow = cast_shadow(c, brief, x, foot - 0.01, half * 1.1)
    spots = [-0.92, -0.45, 0.45, 0.92]
    flawed: dict[str, Box] = {}
    if "extra_part" in brief.flaws:  # a fifth leg, off to one side
        side = -1 if brief.rng.random() < 0.5 else 1
        p, q = (x + side * half * 0.9, seat), (x + side * half * u(1.6, 2.1), seat + u(0.14, 0.26) * s)
        c.line([p, q], 0.032, wood, Part.THING)
        flawed["extra_part"] = box(p, q, pad=0.04)
    for n, k in enumerate(spots):
        c.line(
            [(x + k * half, seat), (x + k * half + (0.02 if k > 0 else -0.02), foot)],
            0.03,
            shade(wood, 0.7 if n in (1, 2) else 0.95),
            Part.THING,
        )
    posts = [
        ((x - half * 0.9, seat), (x - half * 0.95, back)),
        ((x + half * 0.9, seat), (x + half * 0.95, back)),
    ]
    bad = int(brief.rng.integers(2)) if "bent" in brief.flaws else -1
    for n, (p, q) in enumerate(posts):
        c.line(wavy(brief, p, q) if n == bad else [p, q], 0.034, wood, Part.POLE)
        if n == bad:
            flawed["bent"] = box(p, q, pad=0.06)
    for k in (0.15, 0.45, 0.75)[: int(brief.rng.integers(2, 4))]:
        y = back + k * (seat - back)
        c.line([(x - half * 0.92, y), (x + half * 0.92, y)], 0.036, shade(wood, 1.08), Part.THING)
    c.poly(
        [
            (x - half, seat - 0.02),
            (x + half, seat - 0.02),
            (x + half * 1.12, seat + 0.045),
            (x - half * 1.12, seat + 0.045),
        ],
        shade(wood, 1.12),
        Part.THING,
    )
    if "shadow" in brief.flaws:
        flawed["shadow"] = shadow
    return Set(
        (Part.THING, Part.POLE),
        (x, (back + foot) / 2, half + 0.03, (foot - back) / 2),
        flawed,
        {"seat": box((x - half, seat - 0.03), (x + half, seat + 0.05))},
        facts={"legs": str(len(spots) + ("extra_part" in flawed))},
    )


def _bottle(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    glass = brief.colour((0, 1), (0.25, 0.8), (0.3, 0.85))
    half, top, foot = u(0.1, 0.14) * s, 0.86 - 0.68 * s, 0.88
    shoulder = top + 0.22 * s
    shadow = cast_shadow(c, brief, x, foot - 0.005, half * 1.3)
    left = right = half
    flawed: dict[str, Box] = {}
    if "asymmetry" in brief.flaws:
        k = 2.2 + 0.25 * brief.flaws["asymmetry"]
        if brief.rng.random() < 0.5:
            left *= k
        else:
            right *= k
        flawed["asymmetry"] = box((x - left, shoulder), (x + right, foot), pad=0.02)
    neck = 0.035 * s
    c.poly(
        [
            (x - neck, top),
            (x + neck, top),
            (x + neck, shoulder - 0.04),
            (x + right, shoulder + 0.05),
            (x + right, foot),
            (x - left, foot),
            (x - left, shoulder + 0.05),
            (x - neck, shoulder - 0.04),
        ],
        glass,
        Part.THING,
    )
    c.rect(x - neck * 1.25, top - 0.03, x + neck * 1.25, top + 0.02, shade(glass, 0.6), Part.DETAIL)
    a, b = shoulder + 0.1, foot - 0.08
    paper = brief.colour((0.08, 0.16), (0.05, 0.25), (0.8, 0.98))
    c.rect(x - left * 0.96, a, x + right * 0.96, b, paper, Part.LABEL)
    _write(c, brief, x - left * 0.8, x + right * 0.8, a + 0.03, b - 0.02, flawed)
    if "shadow" in brief.flaws:
        flawed["shadow"] = shadow
    return Set(
        (Part.THING, Part.LABEL, Part.DETAIL, Part.TEXT),
        (x, (top + foot) / 2, half + 0.02, (foot - top) / 2),
        flawed,
        {"label": (x - left, a, x + right, b)},
    )


def _car(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    paint = brief.colour((0, 1), (0.4, 0.9), (0.35, 0.9))
    half, y, foot = 0.32 * s, 0.64, 0.78
    tall = 0.13 * s
    shadow = cast_shadow(c, brief, x, foot - 0.005, half * 0.8)
    c.poly(
        [
            (x - half * 0.55, y - tall),
            (x - half * 0.35, y - tall * 2.1),
            (x + half * 0.3, y - tall * 2.1),
            (x + half * 0.6, y - tall),
        ],
        shade(paint, 0.9),
        Part.THING,
    )
    for a, b in ((-0.38, -0.04), (0.03, 0.36)):
        c.poly(
            [
                (x + a * half, y - tall * 1.05),
                (x + (a + 0.08) * half, y - tall * 1.85),
                (x + (b - 0.05) * half, y - tall * 1.85),
                (x + b * half, y - tall * 1.05),
            ],
            brief.colour((0.5, 0.62), (0.1, 0.4), (0.6, 0.9)),
            Part.OPENING,
        )
    c.poly(
        [
            (x - half, y - tall * 0.8),
            (x - half * 0.9, y - tall),
            (x + half * 0.9, y - tall),
            (x + half, y - tall * 0.5),
            (x + half, foot - 0.05),
            (x - half, foot - 0.05),
        ],
        paint,
        Part.THING,
    )
    wheels = [(-0.6, 1.0), (0.6, 1.0)]
    flawed: dict[str, Box] = {}
    r = 0.07 * s
    if "extra_part" in brief.flaws:
        wheels.append((u(-0.08, 0.08), 1.0))
        flawed["extra_part"] = box(
            (x + wheels[-1][0] * half - r, foot - 2 * r), (x + wheels[-1][0] * half + r, foot), pad=0.02
        )
    if "asymmetry" in brief.flaws:
        n = int(brief.rng.integers(2))
        wheels[n] = (wheels[n][0], 1.9)
        flawed["asymmetry"] = box(
            (x + wheels[n][0] * half - 2 * r, foot - 3.5 * r),
            (x + wheels[n][0] * half + 2 * r, foot),
            pad=0.01,
        )
    for k, size in wheels:
        cx, cr = x + k * half, r * size
        c.ellipse(cx, foot - cr, cr, cr, (28, 28, 30), Part.DETAIL)
        c.ellipse(cx, foot - cr, cr * 0.45, cr * 0.45, (165, 165, 170), Part.DETAIL)
    c.ellipse(x + half * 0.93, y - tall * 0.2, 0.02, 0.018, (245, 235, 180), Part.DETAIL)
    if "shadow" in brief.flaws:
        flawed["shadow"] = shadow
    return Set(
        (Part.THING, Part.DETAIL, Part.OPENING),
        (x, y - 0.02, half, tall * 2),
        flawed,
        {"door": box((x - half * 0.4, y - tall), (x + half * 0.4, foot - 0.06))},
        facts={"wheels": str(len(wheels))},
    )


def _lamp(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    metal = brief.colour((0, 1), (0.05, 0.4), (0.25, 0.7))
    cloth = brief.colour((0.05, 0.2), (0.2, 0.6), (0.7, 0.98))
    foot, top = 0.9, 0.9 - 0.72 * s
    shadow = cast_shadow(c, brief, x, foot - 0.005, 0.12 * s)
    flawed: dict[str, Box] = {}
    p, q = (x, foot - 0.03), (x, top + 0.18 * s)
    c.line(wavy(brief, p, q), 0.034, metal, Part.POLE)
    if "bent" in brief.flaws:
        flawed["bent"] = box(p, q, pad=0.07)
    c.ellipse(x, foot - 0.02, 0.11 * s, 0.03, shade(metal, 0.8), Part.THING)
    wide = 0.17 * s
    left = right = wide
    if "asymmetry" in brief.flaws:
        if brief.rng.random() < 0.5:
            left *= 0.2
        else:
            right *= 0.2
        flawed["asymmetry"] = box((x - wide, top), (x + wide, top + 0.22 * s), pad=0.02)
    c.poly(
        [
            (x - left * 0.55, top),
            (x + right * 0.55, top),
            (x + right, top + 0.22 * s),
            (x - left, top + 0.22 * s),
        ],
        cloth,
        Part.THING,
    )
    if "shadow" in brief.flaws:
        flawed["shadow"] = shadow
    return Set(
        (Part.THING, Part.POLE),
        (x, (top + foot) / 2, 0.15 * s, (foot - top) / 2),
        flawed,
        {"shade": box((x - left, top), (x + right, top + 0.22 * s), pad=0)},
    )


def _shelf(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    wood = brief.colour((0.03, 0.12), (0.3, 0.7), (0.3, 0.75))
    half, top, foot = 0.32 * s, 0.9 - 0.78 * s, 0.9
    c.rect(x - half, top, x + half, foot, shade(wood, 0.5), Part.BACKGROUND)
    boards = [top + k * (foot - top) for k in (0.0, 0.33, 0.66, 1.0)]
    flawed: dict[str, Box] = {}
    for k in range(3):
        cursor = x - half + 0.03
        while cursor < x + half - 0.07:
            w, h = u(0.035, 0.07), u(0.12, 0.19) * s
            c.rect(
                cursor,
                boards[k + 1] - h,
                cursor + w,
                boards[k + 1],
                brief.colour((0, 1), (0.3, 0.8), (0.3, 0.9)),
                Part.DETAIL,
            )
            cursor += w + 0.004
    bad = int(brief.rng.integers(1, 3)) if "bent" in brief.flaws else -1
    for n, y in enumerate(boards):
        p, q = (x - half, y), (x + half, y)
        c.line(wavy(brief, p, q) if n == bad else [p, q], 0.03, wood, Part.POLE)
        if n == bad:
            flawed["bent"] = box(p, q, pad=0.07)
    for side in (-half, half):
        c.line([(x + side, top), (x + side, foot)], 0.03, wood, Part.THING)
    a = boards[0] - 0.005
    c.rect(x - half * 0.6, a + 0.03, x + half * 0.6, a + 0.17, (238, 232, 214), Part.LABEL)
    _write(c, brief, x - half * 0.53, x + half * 0.53, a + 0.05, a + 0.16, flawed)
    return Set(
        (Part.THING, Part.POLE, Part.DETAIL, Part.LABEL, Part.TEXT),
        (x, (top + foot) / 2, half, (foot - top) / 2),
        flawed,
        {"books": (x - half, boards[1], x + half, boards[2])},
    )


def _sign(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    board = brief.colour((0, 1), (0.2, 0.8), (0.6, 0.95))
    foot, top = 0.92, 0.92 - 0.8 * s
    shadow = cast_shadow(c, brief, x, foot - 0.005, 0.15 * s)
    flawed: dict[str, Box] = {}
    p, q = (x, foot), (x, top + 0.2)
    c.line(wavy(brief, p, q), 0.036, brief.colour((0, 1), (0, 0.2), (0.35, 0.7)), Part.POLE)
    if "bent" in brief.flaws:
        flawed["bent"] = box(p, (x, top + 0.33 * s), pad=0.07)
    half, tall = u(0.24, 0.32) * s, u(0.26, 0.34) * s
    c.rect(x - half, top, x + half, top + tall, board, Part.LABEL)
    c.line(
        [(x - half, top), (x + half, top), (x + half, top + tall), (x - half, top + tall), (x - half, top)],
        0.014,
        shade(board, 0.5),
        Part.DETAIL,
    )
    _write(c, brief, x - half * 0.82, x + half * 0.82, top + 0.06, top + tall - 0.04, flawed)
    if "shadow" in brief.flaws:
        flawed["shadow"] = shadow
    return Set(
        (Part.LABEL, Part.TEXT, Part.DETAIL, Part.POLE),
        (x, top + tall / 2, half, tall / 2 + 0.05),
        flawed,
        {"board": (x - half, top, x + half, top + tall)},
    )


def _write(
    c: Canvas, brief: Brief, x0: float, x1: float, y0: float, y1: float, flawed: dict[str, Box]
) -> None:
    ink = (30, 28, 40)
    bad = "garble" in brief.flaws
    y, step = y0, 0.062 if bad else 0.05
    while y < y1:
        (lettering.garbled_row if bad else lettering.row)(c, brief.rng, x0, x1, y, 0.021, ink)
        y += step
    if bad:
        flawed["garble"] = box((x0, y0 - 0.02), (x1, y1), pad=0.01)


_DRAW = {"chair": _chair, "bottle": _bottle, "car": _car, "lamp": _lamp, "shelf": _shelf, "sign": _sign}

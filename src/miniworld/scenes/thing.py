"""Man-made objects, one at a time: chairs, bottles, cars, lamps, shelves, signs."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.fitting import OBJECTS
from miniworld.stagecraft import Brief, Set, backdrop, box


def draw_thing(c: Canvas, brief: Brief) -> Set:
    """Draw an object. Flaws by kind: extra parts, bent edges, unequal halves, wrong shadow, garbled label."""
    kinds = [kind for kind, flaws in OBJECTS.items() if set(brief.flaws) <= set(flaws)] or list(OBJECTS)
    kind = brief.pick(*kinds)
    backdrop(c, brief, brief.uniform(0.5, 0.68))
    s = brief.scale()
    result = _DRAW[kind](c, brief, brief.uniform(0.43, 0.57), s)
    result.facts["subject"] = kind
    return result


def _chair(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    wood = brief.colour((0.03, 0.12), (0.3, 0.75), (0.35, 0.85))
    half, seat, foot = 0.17 * s, 0.56, 0.56 + 0.34 * s
    back = 0.56 - 0.38 * s
    brief.cast_shadow(c, x, foot - 0.01, half * 1.1)
    if "extra_part" in brief.flaws:  # a fifth leg, off to one side
        side = brief.side()
        p, q = (x + side * half * 0.9, seat), (x + side * half * u(1.6, 2.1), seat + u(0.14, 0.26) * s)
        c.line([p, q], 0.032, wood, Part.THING)
        brief.flawed["extra_part"] = box(p, q, pad=0.04)
    for n, k in enumerate((-0.92, -0.45, 0.45, 0.92)):
        leg = [(x + k * half, seat), (x + k * half + (0.02 if k > 0 else -0.02), foot)]
        c.line(leg, 0.03, shade(wood, 0.7 if n in (1, 2) else 0.95), Part.THING)
    bad = brief.integer(2) if "bent" in brief.flaws else -1
    for n, (low, high) in enumerate(((x - half * 0.9, x - half * 0.95), (x + half * 0.9, x + half * 0.95))):
        c.line(brief.bend((low, seat), (high, back), 0.06, here=n == bad), 0.034, wood, Part.POLE)
    for k in (0.15, 0.45, 0.75)[: brief.integer(2, 4)]:
        y = back + k * (seat - back)
        c.line([(x - half * 0.92, y), (x + half * 0.92, y)], 0.036, shade(wood, 1.08), Part.THING)
    c.taper(x, seat - 0.02, half, seat + 0.045, half * 1.12, shade(wood, 1.12), Part.THING)
    anchors = {"seat": box((x - half, seat - 0.03), (x + half, seat + 0.05))}
    centre = (x, (back + foot) / 2, half + 0.03, (foot - back) / 2)
    return Set((Part.THING, Part.POLE), centre, anchors, {"legs": str(4 + ("extra_part" in brief.flaws))})


def _bottle(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    glass = brief.colour((0, 1), (0.25, 0.8), (0.3, 0.85))
    half, top, foot = brief.uniform(0.1, 0.14) * s, 0.86 - 0.68 * s, 0.88
    shoulder = top + 0.22 * s
    brief.cast_shadow(c, x, foot - 0.005, half * 1.3)
    left = right = half
    if "asymmetry" in brief.flaws:
        k = 2.2 + 0.25 * brief.flaws["asymmetry"]
        left, right = (half * k, half) if brief.chance(0.5) else (half, half * k)
        brief.flawed["asymmetry"] = box((x - left, shoulder), (x + right, foot), pad=0.02)
    neck = 0.035 * s
    above, below = shoulder - 0.04, shoulder + 0.05
    outer = [(x + neck, top), (x + neck, above), (x + right, below), (x + right, foot)]
    inner = [(x - left, foot), (x - left, below), (x - neck, above)]
    c.poly([(x - neck, top), *outer, *inner], glass, Part.THING)
    c.rect(x - neck * 1.25, top - 0.03, x + neck * 1.25, top + 0.02, shade(glass, 0.6), Part.DETAIL)
    a, b = shoulder + 0.1, foot - 0.08
    paper = brief.colour((0.08, 0.16), (0.05, 0.25), (0.8, 0.98))
    c.rect(x - left * 0.96, a, x + right * 0.96, b, paper, Part.LABEL)
    _write(c, brief, x - left * 0.8, x + right * 0.8, a + 0.03, b - 0.02)
    parts = (Part.THING, Part.LABEL, Part.DETAIL, Part.TEXT)
    centre = (x, (top + foot) / 2, half + 0.02, (foot - top) / 2)
    return Set(parts, centre, {"label": (x - left, a, x + right, b)})


def _car(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    paint = brief.colour((0, 1), (0.4, 0.9), (0.35, 0.9))
    half, y, foot = 0.32 * s, 0.64, 0.78
    tall = 0.13 * s
    brief.cast_shadow(c, x, foot - 0.005, half * 0.8)

    def points(*places: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x + a * half, y - tall * b) for a, b in places]

    roof = [(x - half * 0.55, y - tall), (x - half * 0.35, y - tall * 2.1)]
    c.poly([*roof, *points((0.3, 2.1), (0.6, 1))], shade(paint, 0.9), Part.THING)
    for a, b in ((-0.38, -0.04), (0.03, 0.36)):
        window = points((a, 1.05), (a + 0.08, 1.85), (b - 0.05, 1.85), (b, 1.05))
        c.poly(window, brief.colour((0.5, 0.62), (0.1, 0.4), (0.6, 0.9)), Part.OPENING)
    sill = [(x + half, foot - 0.05), (x - half, foot - 0.05)]
    c.poly([*points((-1, 0.8), (-0.9, 1), (0.9, 1), (1, 0.5)), *sill], paint, Part.THING)
    wheels = [(-0.6, 1.0), (0.6, 1.0)]
    r = 0.07 * s
    if "extra_part" in brief.flaws:
        wheels.append((brief.uniform(-0.08, 0.08), 1.0))
        cx = x + wheels[-1][0] * half
        brief.flawed["extra_part"] = box((cx - r, foot - 2 * r), (cx + r, foot), pad=0.02)
    if "asymmetry" in brief.flaws:
        n = brief.integer(2)
        wheels[n] = (wheels[n][0], 1.9)
        cx = x + wheels[n][0] * half
        brief.flawed["asymmetry"] = box((cx - 2 * r, foot - 3.5 * r), (cx + 2 * r, foot), pad=0.01)
    for k, size in wheels:
        cx, cr = x + k * half, r * size
        c.ellipse(cx, foot - cr, cr, cr, (28, 28, 30), Part.DETAIL)
        c.ellipse(cx, foot - cr, cr * 0.45, cr * 0.45, (165, 165, 170), Part.DETAIL)
    c.ellipse(x + half * 0.93, y - tall * 0.2, 0.02, 0.018, (245, 235, 180), Part.DETAIL)
    parts = (Part.THING, Part.DETAIL, Part.OPENING)
    anchors = {"door": box((x - half * 0.4, y - tall), (x + half * 0.4, foot - 0.06))}
    return Set(parts, (x, y - 0.02, half, tall * 2), anchors, {"wheels": str(len(wheels))})


def _lamp(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    metal = brief.colour((0, 1), (0.05, 0.4), (0.25, 0.7))
    cloth = brief.colour((0.05, 0.2), (0.2, 0.6), (0.7, 0.98))
    foot, top = 0.9, 0.9 - 0.72 * s
    brief.cast_shadow(c, x, foot - 0.005, 0.12 * s)
    low = top + 0.18 * s
    c.line(brief.bend((x, foot - 0.03), (x, low)), 0.034, metal, Part.POLE)
    c.ellipse(x, foot - 0.02, 0.11 * s, 0.03, shade(metal, 0.8), Part.THING)
    wide, low = 0.17 * s, top + 0.22 * s
    left = right = wide
    if "asymmetry" in brief.flaws:
        left, right = (wide * 0.2, wide) if brief.chance(0.5) else (wide, wide * 0.2)
        brief.flawed["asymmetry"] = box((x - wide, top), (x + wide, low), pad=0.02)
    lampshade = [(x - left * 0.55, top), (x + right * 0.55, top), (x + right, low), (x - left, low)]
    c.poly(lampshade, cloth, Part.THING)
    centre = (x, (top + foot) / 2, 0.15 * s, (foot - top) / 2)
    return Set((Part.THING, Part.POLE), centre, {"shade": box((x - left, top), (x + right, low), pad=0)})


def _shelf(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    wood = brief.colour((0.03, 0.12), (0.3, 0.7), (0.3, 0.75))
    half, top, foot = 0.32 * s, 0.9 - 0.78 * s, 0.9
    c.rect(x - half, top, x + half, foot, shade(wood, 0.5), Part.BACKGROUND)
    boards = [top + k * (foot - top) for k in (0.0, 0.33, 0.66, 1.0)]
    for board in boards[1:]:
        left = x - half + 0.03
        while left < x + half - 0.07:
            w, h = u(0.035, 0.07), u(0.12, 0.19) * s
            cover = brief.colour((0, 1), (0.3, 0.8), (0.3, 0.9))
            c.rect(left, board - h, left + w, board, cover, Part.DETAIL)
            left += w + 0.004
    bad = brief.integer(1, 3) if "bent" in brief.flaws else -1
    for n, y in enumerate(boards):
        c.line(brief.bend((x - half, y), (x + half, y), here=n == bad), 0.03, wood, Part.POLE)
    for side in (-half, half):
        c.line([(x + side, top), (x + side, foot)], 0.03, wood, Part.THING)
    a = boards[0] - 0.005
    c.rect(x - half * 0.6, a + 0.03, x + half * 0.6, a + 0.17, (238, 232, 214), Part.LABEL)
    _write(c, brief, x - half * 0.53, x + half * 0.53, a + 0.05, a + 0.16)
    parts = (Part.THING, Part.POLE, Part.DETAIL, Part.LABEL, Part.TEXT)
    anchors = {"books": (x - half, boards[1], x + half, boards[2])}
    return Set(parts, (x, (top + foot) / 2, half, (foot - top) / 2), anchors)


def _sign(c: Canvas, brief: Brief, x: float, s: float) -> Set:
    u = brief.uniform
    board = brief.colour((0, 1), (0.2, 0.8), (0.6, 0.95))
    foot, top = 0.92, 0.92 - 0.8 * s
    brief.cast_shadow(c, x, foot - 0.005, 0.15 * s)
    pole = brief.bend((x, foot), (x, top + 0.2))
    c.line(pole, 0.036, brief.colour((0, 1), (0, 0.2), (0.35, 0.7)), Part.POLE)
    if "bent" in brief.flaws:
        brief.flawed["bent"] = box((x, foot), (x, top + 0.33 * s), pad=0.07)
    half, tall = u(0.24, 0.32) * s, u(0.26, 0.34) * s
    area = (x - half, top, x + half, top + tall)
    c.rect(*area, board, Part.LABEL)
    c.outline(area, 0.014, shade(board, 0.5), Part.DETAIL)
    _write(c, brief, x - half * 0.82, x + half * 0.82, top + 0.06, top + tall - 0.04)
    parts = (Part.LABEL, Part.TEXT, Part.DETAIL, Part.POLE)
    return Set(parts, (x, top + tall / 2, half, tall / 2 + 0.05), {"board": area})


def _write(c: Canvas, brief: Brief, x0: float, x1: float, y0: float, y1: float) -> None:
    bad = "garble" in brief.flaws
    write, step = (brief.scribble, 0.062) if bad else (brief.write, 0.05)
    y = y0
    while y < y1:
        write(c, x0, x1, y, 0.021, (30, 28, 40))
        y += step
    if bad:
        brief.flawed["garble"] = box((x0, y0 - 0.02), (x1, y1), pad=0.01)


_DRAW = {"chair": _chair, "bottle": _bottle, "car": _car, "lamp": _lamp, "shelf": _shelf, "sign": _sign}

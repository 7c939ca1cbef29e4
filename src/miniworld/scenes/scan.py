"""Medical scans: grey slices of a body. Only LOKI-mini has them; FakeClue-mini never shows one."""

from miniworld.canvas import Canvas, Colour, Part
from miniworld.stagecraft import Brief, Set, box


def draw(c: Canvas, brief: Brief) -> Set:
    """Draw a slice with two lungs, a spine and vessels. Flaw: lungs of unequal size."""
    u = brief.uniform

    def grey(low: float, high: float) -> Colour:
        return (255 * u(low, high),) * 3

    c.fill(grey(0.02, 0.07), Part.BACKGROUND)
    x, y, rx, ry = 0.5, 0.5, u(0.36, 0.42), u(0.29, 0.35)
    c.ellipse(x, y, rx, ry, grey(0.55, 0.7), Part.BODY)
    c.ellipse(x, y, rx * 0.9, ry * 0.88, grey(0.38, 0.5), Part.BODY)
    small = 0
    if "asymmetry" in brief.flaws:
        small = (-1, 1)[brief.integer(2)]
        both = (x - rx * 0.8, y - ry * 0.7), (x + rx * 0.8, y + ry * 0.5)
        brief.flawed["asymmetry"] = box(*both, pad=0)
    lung = grey(0.08, 0.18)
    for side in (-1, 1):
        middle, size = x + side * rx * 0.45, 0.5 if side == small else 1.0
        c.ellipse(middle, y - ry * 0.08, rx * 0.32 * size, ry * 0.58 * size, lung, Part.OPENING)
        for _ in range(5):
            vessel = middle + u(-0.2, 0.2) * rx * size, y + u(-0.45, 0.3) * ry * size
            c.ellipse(*vessel, 0.01, 0.01, grey(0.5, 0.7), Part.DETAIL)
    c.ellipse(x, y + ry * 0.62, 0.05, 0.045, grey(0.85, 0.97), Part.THING)
    c.ellipse(x + u(-0.03, 0.06), y + 0.02, 0.07, 0.08, grey(0.6, 0.72), Part.THING)
    anchors = {"lung": box((x - rx * 0.75, y - ry * 0.6), (x - rx * 0.15, y + ry * 0.45), pad=0)}
    parts = (Part.BODY, Part.OPENING, Part.THING)
    return Set(parts, (x, y, rx, ry), anchors, {"subject": "scan"}, paper=True)

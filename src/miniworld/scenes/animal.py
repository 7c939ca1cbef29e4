"""Four-legged animals and birds, seen from the side."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.stagecraft import Brief, Set, backdrop, box

_LENGTHS = {"dog": (0.17, 0.1), "horse": (0.24, 0.2), "bird": (0.16, 0.08), "cat": (0.13, 0.07)}  # leg, neck


def draw(c: Canvas, brief: Brief) -> Set:
    """Draw an animal on the ground. Flaws: an extra leg, a shadow on the wrong side."""
    u = brief.uniform
    backdrop(c, brief, u(0.42, 0.6))
    kind = brief.pick(*_LENGTHS)
    bird = kind == "bird"
    scale, facing = brief.scale(), brief.side()
    x, y = u(0.42, 0.58), u(0.5, 0.58)
    rx, ry = (0.16 * scale, 0.13 * scale) if bird else (0.2 * scale, 0.11 * scale)
    leg, neck = (length * scale for length in _LENGTHS[kind])
    ground = min(0.95, y + ry * 0.7 + leg)
    coat = brief.colour((0.02, 0.14), (0.15, 0.65), (0.35, 0.9))
    if bird:
        coat = brief.colour((0.0, 1.0), (0.3, 0.8), (0.4, 0.9))
    dark = shade(coat, 0.72)
    brief.cast_shadow(c, x, ground - 0.005, rx * 1.05)

    # legs, spread so that each can be counted
    width = (0.028 if bird else u(0.036, 0.05)) * max(scale, 0.9)
    legs = []
    for s in (-0.45, 0.45) if bird else (-0.82, -0.45, 0.45, 0.82):
        legs.append([(x + s * rx, y + ry * 0.6), (x + s * rx + u(-0.015, 0.015), ground)])
    if "extra_part" in brief.flaws:
        if brief.chance(0.15):  # between the others
            s = u(-0.12, 0.12)
            extra = [(x + s * rx, y + ry * 0.7), (x + s * rx + u(-0.03, 0.03), ground)]
        else:  # out of the back
            s = u(-0.5, 0.5)
            extra = [(x + s * rx, y - ry * 0.6), (x + s * rx + u(-0.06, 0.06), y - ry - leg * 0.8)]
        legs.append(extra)
        brief.flawed["extra_part"] = box(*extra, pad=0.04)
    for n, limb in enumerate(legs):
        c.line(limb, width, dark if n % 2 else shade(coat, 0.85), Part.LIMB)

    tail = x - facing * rx * 0.95
    c.line([(tail, y - ry * 0.2), (tail - facing * 0.08, y - u(-0.02, 0.12))], 0.028, dark, Part.LIMB)
    c.ellipse(x, y, rx, ry, coat, Part.BODY, angle=u(-5, 5))
    if brief.chance(0.4):  # spots
        for _ in range(brief.integer(3, 7)):
            spot = (x + u(-0.7, 0.7) * rx, y + u(-0.5, 0.5) * ry, u(0.015, 0.035), u(0.012, 0.025))
            c.ellipse(*spot, shade(coat, 0.6), Part.BODY)
    hx, hy = x + facing * (rx * 0.95 + neck * 0.35), y - ry * 0.5 - neck * 0.75
    c.line([(x + facing * rx * 0.7, y - ry * 0.2), (hx, hy)], 0.075 * scale, coat, Part.BODY)
    head = (0.06 if bird else 0.075) * scale
    c.ellipse(hx + facing * 0.02, hy, head, head * 0.8, coat, Part.HEAD)
    if bird:
        beak = brief.colour((0.08, 0.14), (0.7, 0.9), (0.7, 0.95))
        front, tip = hx + facing * head, (hx + facing * (head + 0.07), hy + 0.01)
        c.poly([(front, hy - 0.02), tip, (front, hy + 0.03)], beak, Part.MOUTH)
    else:
        muzzle = (hx + facing * head * 0.95, hy + head * 0.25, head * 0.55, head * 0.4)
        c.ellipse(*muzzle, shade(coat, 0.9), Part.HEAD)
        for k in (-0.5, 0.3):
            left, right = (hx + k * head, hy - head * 0.5), (hx + (k + 0.6) * head, hy - head * 0.5)
            c.poly([left, (hx + k * head + 0.02, hy - head * 1.5), right], dark, Part.HEAD)
    c.ellipse(hx + facing * 0.03, hy - 0.012, 0.014, 0.014, (18, 16, 16), Part.EYE)
    body, face = box((x - rx, y - ry), (x + rx, y + ry)), box((hx - head, hy - head), (hx + head, hy + head))
    facts = {"subject": kind, "legs": str(len(legs))}
    centre = (x, y, rx + 0.05, ry + 0.08)
    return Set((Part.BODY, Part.HEAD, Part.LIMB), centre, {"body": body, "head": face}, facts)

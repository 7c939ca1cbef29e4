"""People, standing, whole figure."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.stagecraft import Brief, Set, backdrop, box


def draw(c: Canvas, brief: Brief) -> Set:
    """Draw a standing person. Flaws: a third arm or leg, arms of unequal size, a shadow on the wrong side."""
    u = brief.uniform
    backdrop(c, brief, u(0.55, 0.75))
    scale = brief.scale() * 0.95
    x, feet = u(0.42, 0.58), u(0.88, 0.94)
    height = 0.74 * scale
    top = feet - height
    head = 0.085 * scale
    skin = brief.colour((0.04, 0.09), (0.25, 0.6), (0.45, 0.95))
    shirt = brief.colour((0, 1), (0.25, 0.85), (0.3, 0.9))
    trousers = brief.colour((0, 1), (0.1, 0.6), (0.2, 0.6))
    hair = brief.colour((0.02, 0.12), (0.2, 0.7), (0.1, 0.6))
    brief.cast_shadow(c, x, feet - 0.005, 0.13 * scale)
    shoulder, hip = top + 2.2 * head, top + height * 0.55
    half = 0.095 * scale

    legs = [(x - half * 0.5, x - half * u(0.5, 1.1)), (x + half * 0.5, x + half * u(0.5, 1.1))]
    extra = None
    if "extra_part" in brief.flaws:
        extra = "arm" if brief.chance(0.6) else "leg"
    if extra == "leg":
        side = brief.side()
        foot = (x + side * half * 2.3, feet - u(0.0, 0.05))
        legs.append((x + side * half * 0.6, foot[0]))
        brief.flawed["extra_part"] = box((x, hip), foot)
    for hip_x, foot_x in legs:
        c.line([(hip_x, hip - 0.02), (foot_x, feet - 0.015)], 0.058 * scale, trousers, Part.LIMB)
        c.ellipse(foot_x + 0.012, feet - 0.01, 0.035 * scale, 0.018 * scale, shade(trousers, 0.5), Part.LIMB)

    c.taper(x, shoulder, half, hip, half * 0.8, shirt, Part.CLOTH)
    arms = [(-1, u(0.12, 0.32), 1.0), (1, u(0.12, 0.32), 1.0)]
    if "asymmetry" in brief.flaws:
        n = brief.integer(2)
        side, lift, _ = arms[n]
        arms[n] = (side, lift, 2.0 + 0.25 * brief.flaws["asymmetry"] if brief.chance(0.5) else 0.3)
        end = (x + side * (half + 0.1), min(0.97, shoulder + 0.34 * scale * arms[n][2]))
        brief.flawed["asymmetry"] = box((x + side * half, shoulder), end, pad=0.04)
    if extra == "arm":
        arms.append((brief.side(), u(0.75, 1.1), 1.0))
    for n, (side, lift, size) in enumerate(arms):
        width = 0.042 * scale * (size if size > 1 else max(size, 0.75))
        sx, sy = x + side * half * 0.92, shoulder + 0.02 + (0.05 if n == 2 else 0)
        ex, ey = sx + side * 0.16 * scale * size * lift, sy + 0.16 * scale * size * (1.15 - 0.55 * lift)
        wx, wy = ex + side * 0.12 * scale * size * lift, ey + 0.14 * scale * size * (1.1 - lift)
        c.line([(sx, sy), (ex, ey)], width, shade(shirt, 0.85), Part.LIMB)
        c.line([(ex, ey), (wx, wy)], width * 0.85, skin, Part.SKIN)
        hand = 0.022 * scale * max(size, 0.8)
        c.ellipse(wx, wy, hand, hand, skin, Part.SKIN)
        if n == 2:
            brief.flawed["extra_part"] = box((sx, sy), (ex, ey), (wx, wy))

    hy = top + head
    c.line([(x, shoulder), (x, hy)], 0.05 * scale, skin, Part.SKIN)
    c.ellipse(x, hy, head * 0.82, head, skin, Part.HEAD)
    c.ellipse(x, hy - head * 0.55, head * 0.88, head * 0.55, hair, Part.HAIR)
    for side in (-1, 1):
        c.ellipse(x + side * head * 0.35, hy, 0.012, 0.012, (20, 20, 25), Part.EYE)
    mouth = [(x - head * 0.3, hy + head * 0.5), (x + head * 0.3, hy + head * 0.5)]
    c.line(mouth, 0.01, shade(skin, 0.55), Part.MOUTH)
    anchors = {
        "torso": box((x - half, shoulder), (x + half, hip)),
        "head": box((x - head, top), (x + head, top + 2 * head)),
        "legs": box((x - half, hip), (x + half, feet)),
    }
    parts = (Part.CLOTH, Part.LIMB, Part.SKIN, Part.HEAD, Part.HAIR)
    facts = {"subject": "person", "arms": str(len(arms)), "legs": str(len(legs))}
    return Set(parts, (x, (top + feet) / 2, half + 0.08, height / 2), anchors, facts)

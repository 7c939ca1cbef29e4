"""Animals from the side, people standing, faces in close-up (as in face-forgery corpora), medical scans."""

from miniworld.canvas import Canvas, Colour, Part, shade
from miniworld.stagecraft import Brief, Set, backdrop, box

_LENGTHS = {"dog": (0.17, 0.1), "horse": (0.24, 0.2), "bird": (0.16, 0.08), "cat": (0.13, 0.07)}  # leg, neck


def draw_animal(c: Canvas, brief: Brief) -> Set:
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

    width = (0.028 if bird else u(0.036, 0.05)) * max(scale, 0.9)
    spread = (-0.45, 0.45) if bird else (-0.82, -0.45, 0.45, 0.82)  # so that each leg can be counted
    legs = [[(x + s * rx, y + ry * 0.6), (x + s * rx + u(-0.015, 0.015), ground)] for s in spread]
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


def draw_human(c: Canvas, brief: Brief) -> Set:
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
    extra = ("arm" if brief.chance(0.6) else "leg") if "extra_part" in brief.flaws else ""
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


def draw_face(c: Canvas, brief: Brief) -> Set:
    """Draw a face. Flaw: eyes of unequal size."""
    u, pose = brief.uniform, brief.pose
    backdrop(c, brief, u(0.55, 0.95))
    scale = brief.scale()
    x, y = u(0.46, 0.54) + pose[0], u(0.47, 0.53) + pose[1]
    rx, ry = u(0.23, 0.27) * scale, u(0.31, 0.36) * scale
    skin = brief.colour((0.03, 0.09), (0.25, 0.6), (0.45, 0.95))
    hair = brief.colour((0.02, 0.13), (0.2, 0.75), (0.08, 0.6))
    shirt = brief.colour((0, 1), (0.2, 0.8), (0.25, 0.85))
    c.taper(x, y + ry * 1.15, rx * 1.2, 1.0, rx * 1.7, shirt, Part.CLOTH)
    c.rect(x - rx * 0.42, y + ry * 0.6, x + rx * 0.42, y + ry * 1.25, shade(skin, 0.82), Part.SKIN)
    up, tall = (0.1, 1.15) if brief.chance(0.45) else (0.22, 0.98)
    c.ellipse(x, y - ry * up, rx * 1.16, ry * tall, hair, Part.HAIR)
    for side in (-1, 1):
        c.ellipse(x + side * rx * 1.0, y + 0.02, 0.03 * scale, 0.055 * scale, shade(skin, 0.9), Part.SKIN)
    c.ellipse(x, y + ry * 0.06, rx, ry * 0.95, skin, Part.HEAD)
    c.ellipse(x + u(-0.3, 0.3) * rx, y - ry * 0.78, rx * 0.95, ry * 0.28, hair, Part.HAIR)
    ey, gap = y - ry * 0.08, rx * u(0.4, 0.46)
    iris = brief.colour((0.05, 0.65), (0.3, 0.8), (0.2, 0.6))
    width, height = 0.058 * scale, u(0.028, 0.036) * scale
    left, right = x - gap - width, x + gap + width
    odd = 0
    if "asymmetry" in brief.flaws:
        odd = brief.side()
        grow = 2.3 + 0.3 * brief.flaws["asymmetry"] if brief.chance(0.6) else 0.3
        brief.flawed["asymmetry"] = box((left, ey - 0.07), (right, ey + 0.05), pad=0.01)
    brow = u(0.055, 0.075) * scale
    for side in (-1, 1):
        k = grow if side == odd else 1.0
        ex = x + side * gap
        c.ellipse(ex, ey, width * k, height * k, (238, 234, 228), Part.EYE)
        c.ellipse(ex, ey, 0.024 * scale * k, 0.026 * scale * k, iris, Part.EYE)
        c.ellipse(ex, ey, 0.011 * scale * k, 0.012 * scale * k, (12, 10, 10), Part.EYE)
        c.ellipse(ex + brief.light * 0.011, ey - 0.011, 0.007, 0.007, (255, 255, 255), Part.EYE)
        by = ey - (brow + (height * (k - 1) if k > 1 else 0))
        c.line([(ex - width, by), (ex, by - 0.012), (ex + width, by)], 0.02, shade(hair, 0.8), Part.HAIR)
    nose = y + ry * 0.28
    bridge = [(x, ey + 0.02), (x + brief.light * -0.02, nose), (x + 0.015, nose + 0.005)]
    c.line(bridge, 0.014, shade(skin, 0.72), Part.DETAIL)
    my = y + ry * 0.55
    lips = shade(brief.colour((0.96, 1.02), (0.4, 0.7), (0.55, 0.8)), 0.95)
    c.ellipse(x, my, rx * 0.42, 0.024 * scale + pose[2] * 0.5, lips, Part.MOUTH)
    if pose[2] > 0.008:
        c.ellipse(x, my, rx * 0.32, pose[2] * 0.6, (60, 22, 24), Part.MOUTH)
    else:
        c.line([(x - rx * 0.4, my), (x + rx * 0.4, my)], 0.008, shade(lips, 0.6), Part.MOUTH)
    anchors = {
        "eyes": box((left, ey - 0.05), (right, ey + 0.05), pad=0),
        "mouth": box((x - rx * 0.5, my - 0.05), (x + rx * 0.5, my + 0.05), pad=0.01),
        "cheek": box((x - rx * 0.85, y), (x + rx * 0.85, y + ry * 0.6), pad=0),
        "forehead": box((x - rx * 0.7, y - ry * 0.75), (x + rx * 0.7, y - ry * 0.3), pad=0),
    }
    parts = (Part.HEAD, Part.SKIN, Part.EYE, Part.MOUTH, Part.DETAIL)
    return Set(parts, (x, y, rx, ry), anchors, {"subject": "face"})


def draw_scan(c: Canvas, brief: Brief) -> Set:
    """Draw a grey slice with two lungs, a spine and vessels (LOKI-mini only). Flaw: lungs of unequal size."""
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

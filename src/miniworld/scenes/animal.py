"""Four-legged animals and birds, seen from the side."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.stagecraft import Brief, Set, backdrop, box


def draw(c: Canvas, brief: Brief) -> Set:
    """Draw an animal on the ground. Flaws: an extra leg, a shadow on the wrong side."""
    u = brief.uniform
    backdrop(c, brief, u(0.42, 0.6))
    kind = brief.pick("dog", "horse", "bird", "cat")
    bird = kind == "bird"
    scale, facing = brief.scale(), brief.side()
    x, y = u(0.42, 0.58), u(0.5, 0.58)
    rx, ry = (0.16 * scale, 0.13 * scale) if bird else (0.2 * scale, 0.11 * scale)
    leg = {"dog": 0.17, "horse": 0.24, "bird": 0.16, "cat": 0.13}[kind] * scale
    ground = min(0.95, y + ry * 0.7 + leg)
    coat = brief.colour((0.02, 0.14), (0.15, 0.65), (0.35, 0.9))
    if bird:
        coat = brief.colour((0.0, 1.0), (0.3, 0.8), (0.4, 0.9))
    dark = shade(coat, 0.72)
    brief.cast_shadow(c, x, ground - 0.005, rx * 1.05)

    # legs, spread so that each can be counted
    spots = [-0.45, 0.45] if bird else [-0.82, -0.45, 0.45, 0.82]
    width = (0.028 if bird else u(0.036, 0.05)) * max(scale, 0.9)
    legs = [(x + s * rx, y + ry * 0.6, x + s * rx + u(-0.015, 0.015), ground) for s in spots]
    if "extra_part" in brief.flaws:
        if brief.rng.random() < 0.15:  # between the others
            s = u(-0.12, 0.12)
            extra = (x + s * rx, y + ry * 0.7, x + s * rx + u(-0.03, 0.03), ground)
        else:  # out of the back
            s = u(-0.5, 0.5)
            extra = (x + s * rx, y - ry * 0.6, x + s * rx + u(-0.06, 0.06), y - ry - leg * 0.8)
        legs.append(extra)
        brief.flawed["extra_part"] = box(extra[:2], extra[2:], pad=0.04)
    for n, limb in enumerate(legs):
        c.line([limb[:2], limb[2:]], width, dark if n % 2 else shade(coat, 0.85), Part.LIMB)

    tail = x - facing * rx * 0.95
    c.line([(tail, y - ry * 0.2), (tail - facing * 0.08, y - u(-0.02, 0.12))], 0.028, dark, Part.LIMB)
    c.ellipse(x, y, rx, ry, coat, Part.BODY, angle=u(-5, 5))
    if brief.rng.random() < 0.4:  # spots
        for _ in range(brief.integer(3, 7)):
            spot = (x + u(-0.7, 0.7) * rx, y + u(-0.5, 0.5) * ry, u(0.015, 0.035), u(0.012, 0.025))
            c.ellipse(*spot, shade(coat, 0.6), Part.BODY)
    neck = {"dog": 0.1, "horse": 0.2, "bird": 0.08, "cat": 0.07}[kind] * scale
    hx, hy = x + facing * (rx * 0.95 + neck * 0.35), y - ry * 0.5 - neck * 0.75
    c.line([(x + facing * rx * 0.7, y - ry * 0.2), (hx, hy)], 0.075 * scale, coat, Part.BODY)
    head = (0.06 if bird else 0.075) * scale
    c.ellipse(hx + facing * 0.02, hy, head, head * 0.8, coat, Part.HEAD)
    front = hx + facing * head
    if bird:
        beak = brief.colour((0.08, 0.14), (0.7, 0.9), (0.7, 0.95))
        tip = (hx + facing * (head + 0.07), hy + 0.01)
        c.poly([(front, hy - 0.02), tip, (front, hy + 0.03)], beak, Part.MOUTH)
    else:
        muzzle = (hx + facing * head * 0.95, hy + head * 0.25, head * 0.55, head * 0.4)
        c.ellipse(*muzzle, shade(coat, 0.9), Part.HEAD)
        for k in (-0.5, 0.3):
            left, right = (hx + k * head, hy - head * 0.5), (hx + (k + 0.6) * head, hy - head * 0.5)
            c.poly([left, (hx + k * head + 0.02, hy - head * 1.5), right], dark, Part.HEAD)
    c.ellipse(hx + facing * 0.03, hy - 0.012, 0.014, 0.014, (18, 16, 16), Part.EYE)
    body, face = box((x - rx, y - ry), (x + rx, y + ry)), box((hx - head, hy - head), (hx + head, hy + head))
    return Set(
        subject=(Part.BODY, Part.HEAD, Part.LIMB),
        centre=(x, y, rx + 0.05, ry + 0.08),
        anchors={"body": body, "head": face},
        texture={Part.BODY: (7, 5), Part.HEAD: (6, 4), Part.LIMB: (6, 3), Part.GROUND: (7, 3)}
        | {Part.SKY: (2, 0)},
        facts={"subject": kind, "legs": str(len(legs))},
    )

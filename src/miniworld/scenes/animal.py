"""Four-legged animals and birds, seen from the side."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.stagecraft import Brief, Set, backdrop, box, cast_shadow

FLAWS = ("extra_part", "shadow")


def draw(c: Canvas, brief: Brief) -> Set:
    """An animal on the ground. Flaws: an extra leg, a shadow on the wrong side."""
    u = brief.uniform
    horizon = u(0.42, 0.6)
    backdrop(c, brief, horizon)
    kind = brief.pick("dog", "horse", "bird", "cat")
    scale = u(*brief.style.scale)
    facing = -1 if brief.rng.random() < 0.5 else 1
    x, y = u(0.42, 0.58), u(0.5, 0.58)
    rx, ry = (0.2 * scale, 0.11 * scale) if kind != "bird" else (0.16 * scale, 0.13 * scale)
    leg = {"dog": 0.17, "horse": 0.24, "bird": 0.16, "cat": 0.13}[kind] * scale
    ground = min(0.95, y + ry * 0.7 + leg)
    coat = brief.colour((0.02, 0.14), (0.15, 0.65), (0.35, 0.9))
    if kind == "bird":
        coat = brief.colour((0.0, 1.0), (0.3, 0.8), (0.4, 0.9))
    dark = shade(coat, 0.72)
    shadow = cast_shadow(c, brief, x, ground - 0.005, rx * 1.05)

    # legs: four (two for a bird), spread so that each can be counted
    spots = [-0.45, 0.45] if kind == "bird" else [-0.82, -0.45, 0.45, 0.82]
    width = (0.028 if kind == "bird" else u(0.036, 0.05)) * max(scale, 0.9)
    flawed = {}
    legs = [(x + s * rx, y + ry * 0.6, x + s * rx + u(-0.015, 0.015), ground) for s in spots]
    if "extra_part" in brief.flaws:
        if brief.rng.random() < 0.15:  # between the others
            s = u(-0.12, 0.12)
            extra = (x + s * rx, y + ry * 0.7, x + s * rx + u(-0.03, 0.03), ground)
        else:  # out of the back
            s = u(-0.5, 0.5)
            extra = (x + s * rx, y - ry * 0.6, x + s * rx + u(-0.06, 0.06), y - ry - leg * 0.8)
        legs.append(extra)
        flawed["extra_part"] = box(extra[:2], extra[2:], pad=0.04)
    for n, (x0, y0, x1, y1) in enumerate(legs):
        c.line([(x0, y0), (x1, y1)], width, dark if n % 2 else shade(coat, 0.85), Part.LIMB)

    tail = x - facing * rx * 0.95
    c.line([(tail, y - ry * 0.2), (tail - facing * 0.08, y - u(-0.02, 0.12))], 0.028, dark, Part.LIMB)
    c.ellipse(x, y, rx, ry, coat, Part.BODY, angle=u(-5, 5))
    if brief.rng.random() < 0.4:  # spots
        for _ in range(int(brief.rng.integers(3, 7))):
            c.ellipse(
                x + u(-0.7, 0.7) * rx,
                y + u(-0.5, 0.5) * ry,
                u(0.015, 0.035),
                u(0.012, 0.025),
                shade(coat, 0.6),
                Part.BODY,
            )
    neck = {"dog": 0.1, "horse": 0.2, "bird": 0.08, "cat": 0.07}[kind] * scale
    hx, hy = x + facing * (rx * 0.95 + neck * 0.35), y - ry * 0.5 - neck * 0.75
    c.line([(x + facing * rx * 0.7, y - ry * 0.2), (hx, hy)], 0.075 * scale, coat, Part.BODY)
    head = (0.075 if kind != "bird" else 0.06) * scale
    c.ellipse(hx + facing * 0.02, hy, head, head * 0.8, coat, Part.HEAD)
    if kind == "bird":
        beak = brief.colour((0.08, 0.14), (0.7, 0.9), (0.7, 0.95))
        c.poly(
            [
                (hx + facing * head, hy - 0.02),
                (hx + facing * (head + 0.07), hy + 0.01),
                (hx + facing * head, hy + 0.03),
            ],
            beak,
            Part.MOUTH,
        )
    else:
        c.ellipse(
            hx + facing * head * 0.95, hy + head * 0.25, head * 0.55, head * 0.4, shade(coat, 0.9), Part.HEAD
        )
        for k in (-0.5, 0.3):
            c.poly(
                [
                    (hx + k * head, hy - head * 0.5),
                    (hx + k * head + 0.02, hy - head * 1.5),
                    (hx + (k + 0.6) * head, hy - head * 0.5),
                ],
                dark,
                Part.HEAD,
            )
    c.ellipse(hx + facing * 0.03, hy - 0.012, 0.014, 0.014, (18, 16, 16), Part.EYE)
    if "shadow" in brief.flaws:
        flawed["shadow"] = shadow
    return Set(
        subject=(Part.BODY, Part.HEAD, Part.LIMB),
        centre=(x, y, rx + 0.05, ry + 0.08),
        flawed=flawed,
        anchors={
            "body": box((x - rx, y - ry), (x + rx, y + ry)),
            "head": box((hx - head, hy - head), (hx + head, hy + head)),
        },
        texture={
            Part.BODY: (7, 5),
            Part.HEAD: (6, 4),
            Part.LIMB: (6, 3),
            Part.GROUND: (7, 3),
            Part.SKY: (2, 0),
        },
        facts={"subject": kind, "legs": str(len(legs))},
    )

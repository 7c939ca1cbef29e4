"""Faces in close-up, as in face-forgery corpora."""

from miniworld.canvas import Canvas, Part, shade
from miniworld.stagecraft import Brief, Set, backdrop, box


def draw(c: Canvas, brief: Brief) -> Set:
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

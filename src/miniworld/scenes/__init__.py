"""The miniature's scenes: one module a category, each `draw(canvas, brief) -> Set`."""

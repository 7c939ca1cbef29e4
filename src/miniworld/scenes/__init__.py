"""The miniature's scenes: each is a function `draw…(canvas, brief) -> Set`."""

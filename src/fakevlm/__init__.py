"""FakeVLM: say whether an image is real or synthetic, and explain the artifacts in words."""

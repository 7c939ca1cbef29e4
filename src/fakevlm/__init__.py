"""FakeVLM: say whether an image is real or synthetic, and explain the artifacts in words."""

import warnings

# Progress is text (fakevlm.progress): no advice to install widgets at every notebook's top.
warnings.filterwarnings("ignore", message="IProgress not found")

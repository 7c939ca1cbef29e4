"""FakeVLM: say whether an image is real or synthetic, and explain the artifacts in words."""

import warnings

# Progress is shown as text everywhere (fakevlm.progress); tqdm's advice to install widgets would open every notebook.
warnings.filterwarnings("ignore", message="IProgress not found")

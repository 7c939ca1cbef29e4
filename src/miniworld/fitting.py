"""Which kinds of artifact (keys of `fakevlm.data.clues.KINDS`) can go wrong where."""

# By category of scene. Flaws of the drawing come from the scenes, the others are put in afterwards.
FITTING: dict[str, tuple[str, ...]] = {
    "animal": (
        "smooth", "grid", "smear", "speckle", "extra_part", "duplicate", "melt", "misaligned", "shadow",
        "halo", "tint", "glare",
    ),
    "human": (
        "smooth", "grid", "speckle", "extra_part", "asymmetry", "duplicate", "melt", "misaligned",
        "shadow", "halo", "tint",
    ),
    "object": (
        "smooth", "grid", "repeat", "garble", "extra_part", "bent", "asymmetry", "melt", "misaligned",
        "shadow", "halo", "glare",
    ),
    "scene": (
        "grid", "smear", "repeat", "speckle", "bent", "duplicate", "melt", "misaligned", "shadow", "tint",
    ),
    "satellite": (
        "smooth", "grid", "smear", "repeat", "speckle", "bent", "duplicate", "misaligned", "shadow",
        "tint", "glare",
    ),
    "doc": (
        "garble", "smear", "grid", "speckle", "repeat", "bent", "duplicate", "misaligned", "melt", "tint",
    ),
    "deepfake": (
        "smooth", "grid", "smear", "asymmetry", "duplicate", "melt", "misaligned", "halo", "tint",
        "glare",
    ),
    "medicine": ("smooth", "grid", "smear", "repeat", "duplicate", "melt", "asymmetry", "speckle"),
}  # fmt: skip
# By method of FaceForensics++.
MANIPULATIONS: dict[str, tuple[str, ...]] = {
    "Deepfakes": ("halo", "smooth", "asymmetry"),
    "Face2Face": ("melt", "smear", "glare"),
    "FaceSwap": ("tint", "halo", "misaligned"),
    "NeuralTextures": ("grid", "duplicate", "smooth"),
}

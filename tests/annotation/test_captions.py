"""Captions taken apart into statements, and the polarity of a statement."""

import pytest

from fakevlm.annotation.captions import normalise, polarity, split

MARKDOWN = """### Analysis
1. **Surface texture**: The dog's fur appears overly smooth.
2. **Lighting & shadows** - The shadow points towards the sun; a halo surrounds the ears.
* The left ear is missing!
"""
PROSE = (
    "On closer inspection, the hand has six fingers, while the other one melts into the sleeve. "
    "Eyes, ears, and nose are well formed (e.g. the pupils are round)."
)


@pytest.mark.parametrize(
    ("caption", "statements"),
    [
        (MARKDOWN, "the dog's fur is overly smooth|the shadow points towards the sun|"
         "a halo surrounds the ears|the left ear is missing"),
        (PROSE, "the hand has six fingers|the other one melts into the sleeve|"
         "eyes, ears, and nose are well formed (eg the pupils are round)"),
        # A statement before a colon or dash is no title.
        ("The hands are fused: six fingers on one.", "the hands are fused: six fingers on one"),
        ("The eye is fused — it has no pupil.", "the eye is fused|it has no pupil"),
        ("A hand of six fingers - impossible.", "a hand of six fingers - impossible"),
        ("Surface and colour - the fur is waxy.", "the fur is waxy"),
        # Headings, short remainders and repeats are dropped.
        ("Lighting:\n- Odd.\n- The light is odd.\n- The light is odd.", "the light is odd"),
        ("", ""),
    ],
)  # fmt: skip
def test_split(caption: str, statements: str) -> None:
    assert "|".join(split(caption)) == statements


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Perhaps the shadow seems to be wrong, I think.", "the shadow is wrong"),
        ("It appears that the edges might be bent", "the edges are bent"),
        ("I notice that JPEG blocks are visible.", "JPEG blocks are visible"),
        ("The fur looks painted rather than photographed.", "the fur looks painted rather than photographed"),
        ("Third, the fur is rather smooth.", "the fur is smooth"),
        ("Third leg grows out of the belly.", "third leg grows out of the belly"),
        ("Overall sharpness changes abruptly.", "overall sharpness changes abruptly"),
        ("A hand appears from nowhere.", "a hand appears from nowhere"),
        ("It is possible to see through the hand.", "it is possible to see through the hand"),
        ("Furthermore, the fur appears somewhat waxy", "the fur is waxy"),
        ("**", ""),
    ],
)
def test_hedges_openings_and_capitals_are_removed(written: str, meant: str) -> None:
    assert normalise(written) == meant


@pytest.mark.parametrize(
    ("statement", "sign"),
    [
        ("the skin is unnaturally smooth", -1),
        ("there is no natural grain on the skin", -1),
        ("lines that should be straight are bent", -1),
        ("edges continue without breaks", 1),
        ("no unnatural distortions are visible", 1),
        ("the shadows agree with the light", 1),
        ("the shadows do not agree with the light", -1),
        ("the proportions are not correct and differ between the sides", -1),
        ("the table has five legs", 0),
    ],
)
def test_polarity(statement: str, sign: int) -> None:
    assert polarity(statement) == sign

"""The base's model card."""

from fakevlm.pretraining.recipe import Recipe


def card(
    recipe: Recipe, before: float, after: tuple[float, float], minutes: list[float], threads: int
) -> str:
    """The README.md beside the weights: what it is, what it saw, how long it took, what it was never told.

    Args:
        before: accuracy in the gate (`gate.supervised`) after phase 1.
        after: accuracy and AUC of the shipped tower in the same.
        minutes: of each phase.
        threads: CPU threads used.
    """
    vision, text = dict(recipe.vision), dict(recipe.text)
    passes = recipe.batch * (recipe.dense_steps + recipe.caption_steps)
    return f"""---
library_name: transformers
pipeline_tag: image-text-to-text
license: mit
---

# The miniature's base model

A small `LlavaForConditionalGeneration` that stands in for LLaVA-1.5-7B in profile `mini`. It has learned to see and to describe
procedural scenes. It was never told which image is real and which is fake, and neither word occurs in
anything its weights were trained on (the tokenizer's merges were learned from the verdict sentences too, so that they stay short).

| part | |
|---|---|
| vision tower | CLIP, {vision["layers"]} layers of width {vision["hidden_size"]}, 96 px, patches of 8 px |
| projector | two-layer MLP with GELU |
| language model | Llama, {text["layers"]} layers of width {text["hidden_size"]} |
| tokenizer | byte-level BPE of its own, at most {recipe.vocab_size} tokens |
| precision on disk | 16 bit |

## What it saw

{recipe.images:,} renders of the miniature world (seed {recipe.seed}, no image of FakeClue-mini or of a benchmark), {passes:,} image passes in two phases:

1. {recipe.dense_steps:,} steps of {recipe.batch} images, vision tower alone, on dense targets: for every patch which part of the scene is
   here, which visual phenomenon (grid, smear, bent line, halo …) and how much grain; for the image the scene, the side of the light, the film.
2. {recipe.caption_steps:,} steps of {recipe.batch} images, the whole model, on questions and neutral descriptions (`src/fakevlm/pretraining/describe.py`):
   what there is, how many, straight or bent, where the light comes from.

The phenomena are described as they look and never judged. This makes the miniature's base better prepared than LLaVA-1.5 is: its
vocabulary of perception matches the miniature's artifacts. Numbers of profile `mini` must be read with that in mind.

## Gate

A copy of the tower, tuned on labels of 3,000 fresh renders, tells fake from real on 1,000 others with accuracy {before:.3f} after phase 1,
and {after[0]:.3f} (AUC {after[1]:.3f}) after both, as shipped here. The design asks for .93.

## How long

Phase 1 took {minutes[0]:.0f} and phase 2 {minutes[1]:.0f} minutes on {threads} CPU threads of a shared machine; renders and gates add about eight.
`make base` repeats it: the renders are the same to the bit, the weights on another processor are not.
"""

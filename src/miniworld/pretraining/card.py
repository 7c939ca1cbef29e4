"""The base's model card."""

from miniworld.pretraining.recipe import Recipe

# Said where the last round was run alone; the first had been run before the world's artifacts were made larger.
CONTINUED = """The first round was run earlier (38 + 38 minutes on 2 CPU threads), with the miniature's artifacts as they were then: bent lines, duplicates,
unequal parts, shadows and others were smaller. The second round went on from the base it had made (`make base ARGS="--start FOLDER"`),
with the world as it is now. `make base` without `--start` makes both rounds with the world as it is now.

"""


def card(
    recipe: Recipe, gates: list[tuple[float, float]], minutes: list[float], threads: int, *, continued: bool
) -> str:
    """The README.md beside the weights: what it is, what it saw, how long it took, what it was never told.

    Args:
        gates: accuracy and AUC in the gate (`gate.supervised`) after each phase that this run made.
        minutes: of each of these phases.
        threads: CPU threads used.
        continued: this run went on from a finished base, with the last round alone.
    """
    vision, text = dict(recipe.vision), dict(recipe.text)
    steps = [(plan.dense_steps, plan.caption_steps) for plan in recipe.rounds]
    images = sum(plan.images for plan in recipe.rounds)
    passes = recipe.batch * sum(map(sum, steps))
    before, after = gates[-2][0], gates[-1]
    dense, captions = (" + ".join(f"{count:,}" for count in phase) for phase in zip(*steps, strict=True))
    took = ", ".join(f"{m:.0f}" for m in minutes)
    went_on = CONTINUED if continued else ""
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

{images:,} renders of the miniature world (seed {recipe.seed}, no image of FakeClue-mini or of a benchmark), {passes:,} image passes in {len(recipe.rounds)} rounds of two phases:

1. {dense} steps of {recipe.batch} images, vision tower alone, on dense targets: for every patch which part of the scene is
   here, which visual phenomenon (grid, smear, bent line, halo …) and how much grain; for the image the scene, the side of the light, the film.
2. {captions} steps of {recipe.batch} images, the whole model, on questions and neutral descriptions (`src/miniworld/pretraining/describe.py`):
   what there is, how many, straight or bent, where the light comes from.

The phenomena are described as they look and never judged. This makes the miniature's base better prepared than LLaVA-1.5 is: its
vocabulary of perception matches the miniature's artifacts. Numbers of profile `mini` must be read with that in mind.

## Gate

A copy of the tower, tuned on labels of 3,000 fresh renders, tells fake from real on 1,000 others with accuracy {before:.3f} after the last
round's phase 1, and {after[0]:.3f} (AUC {after[1]:.3f}) as shipped here. The design asks for .93. About 2 % of these renders are fakes without any visible artifact.

## How long

{went_on}This run's phases took {took} minutes on {threads} CPU threads of a shared machine; renders and gates add to that.
`make base` repeats it: the renders are the same to the bit, the weights on another processor are not.
"""

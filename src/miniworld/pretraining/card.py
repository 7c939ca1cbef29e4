"""The base's model card, from the templates card.md and card_continued.md."""

from pathlib import Path

from miniworld.pretraining.recipe import Recipe


def card(
    recipe: Recipe, gates: list[tuple[float, float]], minutes: list[float], threads: int, *, continued: bool
) -> str:
    """Return the README.md beside the weights.

    Args:
        gates: accuracy and AUC in the gate (`gate.supervised`) after each phase of this run.
        minutes: of each of these phases.
        threads: CPU threads used.
        continued: this run continued a finished base, with the last round alone.
    """
    folder = Path(__file__).parent
    template, went_on = ((folder / name).read_text("utf-8") for name in ("card.md", "card_continued.md"))
    vision, text = dict(recipe.vision), dict(recipe.text)
    steps = [(plan.dense_steps, plan.caption_steps) for plan in recipe.rounds]
    dense, captions = (" + ".join(f"{count:,}" for count in phase) for phase in zip(*steps, strict=True))
    return template.format(
        vision_layers=vision["layers"],
        vision_width=vision["hidden_size"],
        text_layers=text["layers"],
        text_width=text["hidden_size"],
        vocabulary=recipe.vocab_size,
        seed=recipe.seed,
        images=f"{sum(plan.images for plan in recipe.rounds):,}",
        passes=f"{recipe.batch * sum(map(sum, steps)):,}",
        rounds=len(recipe.rounds),
        batch=recipe.batch,
        dense=dense,
        captions=captions,
        before=f"{gates[-2][0]:.3f}",
        after=f"{gates[-1][0]:.3f}",
        auc=f"{gates[-1][1]:.3f}",
        continued=went_on if continued else "",
        took=", ".join(f"{m:.0f}" for m in minutes),
        threads=threads,
    )

"""Pretraining of the miniature's base (`make base`), which stands in for LLaVA-1.5: scenes, no verdicts."""

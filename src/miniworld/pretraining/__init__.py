"""Pretraining of the miniature's base model (`make base`), which stands in for LLaVA-1.5.

It learns to see and to describe scenes, never which images are real or fake.
"""

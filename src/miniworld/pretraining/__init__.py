"""Pretraining of the miniature's base model (`make base`; no stage runs it).

The base stands in for LLaVA-1.5. It has learned to see and to describe scenes, never which images are real or
fake.
"""

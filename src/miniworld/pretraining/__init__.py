"""How the miniature's base model was pretrained: a side branch that `dvc repro` never runs (`make base`).

The base stands in for LLaVA-1.5. It has learned to see and to describe scenes, never which images are real or
fake."""

"""How the miniature's base model was made: a side branch that `dvc repro` never runs (`make base`).

The base stands in for LLaVA-1.5: it has learned to see and to describe scenes and their photographic qualities, and was
never told which images are real and which are fake. `describe` holds all that it is ever told in words, `pool` renders what
it sees, `dense` teaches the vision tower, `train` puts it together.
"""

"""The sections of params.yaml that have several kinds or many keys; `fakevlm.params` holds the others and loads them all."""

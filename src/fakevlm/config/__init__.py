"""Typed settings: params.yaml, checked when it is loaded."""

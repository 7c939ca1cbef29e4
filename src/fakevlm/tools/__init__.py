"""Commands beside the pipeline. No stage depends on them."""

"""Records, shards, ground truth, and readers of the public corpora."""

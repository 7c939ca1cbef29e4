"""The records of every corpus and benchmark: read, filtered, checked for leakage."""

"""Readers of the public corpora. They stream records in a fixed order and read images whose ids are `drawn`.

They decode none: `collect.inspect` does. What cannot be read is yielded in its place as `Unusable`. Without a
folder or list they raise a `UserError` that says where to get the corpus.
"""

"""Readers of the public corpora, each for the corpus's real folder layout and file formats.

A reader streams records in a fixed order and reads only images whose ids are `drawn`. It decodes none:
`collect.inspect` checks all of them the same way. What should be there and cannot be read is yielded as
`Unusable`, in its place. A missing folder or list is a `UserError` that says where to get the corpus.
"""

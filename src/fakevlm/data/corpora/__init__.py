"""One reader a public corpus, each for the corpus's real folder layout and file formats.

A reader module has `WHERE`, the way to get the corpus, and `read(root, …)`, which streams records in a
fixed order. Only images whose ids are `drawn` are read. Images are not decoded here: `collection.filter`
checks all of them the same way. What should be there and cannot be read is yielded as `Unusable`, in its
place. A missing folder or list is a `UserError` that says where to get it.
"""

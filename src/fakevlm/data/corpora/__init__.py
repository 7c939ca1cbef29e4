"""One reader a public corpus, each by the corpus's real folder layout and file formats.

A reader is a function `read(root, …)` that streams records in a fixed order. It reads bytes and does not
decode pictures: `collect` checks every image the same way. What cannot be read goes to a `Quarantine`, what
is missing altogether stops with an error that says where to get it.

`catalogue` holds the corpora's terms, addresses and sizes, `verify` what is there of them, `archives` unpacks
them; `collect` reads all.
"""

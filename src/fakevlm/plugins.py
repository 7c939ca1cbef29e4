"""Renderers and annotators by the name that params.yaml gives them: ours, or `module:object` of anybody's.

This is the only place where the package names code outside itself.
"""

import importlib
import re
from collections.abc import Mapping
from typing import Any

from fakevlm.errors import UserError

# collect.renderer: classes with the methods of `synthesis.rendered.Renderer`.
RENDERERS = {
    "fonts": "fakevlm.synthesis.typeset:FontRenderer",
    "miniature": "miniworld.world:MiniatureRenderer",
}
# annotate.annotators[].backend: (entry of params.yaml, ground truth by path, seed) -> `Annotator`.
ANNOTATORS = {
    "observer": "miniworld.observers:ScriptedAnnotator",
    "endpoint": "fakevlm.annotation.annotate:served",
}
REFERENCE = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"  # module:object


def load(name: str, registered: Mapping[str, str], setting: str) -> Any:
    """Return the object that is registered under a name, or that `module:object` names.

    Raises `UserError` if there is no such name, module or object; `setting` is the key in params.yaml.
    """
    reference = registered.get(name, name)
    cure = f"{setting} is one of {', '.join(registered)}, or module:object of a module that can be imported"
    if not re.fullmatch(REFERENCE, reference):
        raise UserError(f"{setting}: nothing is called {name!r}", cure)
    module, attribute = reference.split(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{setting}: {reference} cannot be loaded: {error}", cure) from error

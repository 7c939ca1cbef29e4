"""What does not fit in params.yaml, in the user's terms: the key's full name, what is allowed there, what was given."""

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fakevlm.errors import UserError


def explain(error: ValidationError, root: type[BaseModel], profile: str, file: Path) -> UserError:
    """The error for the user: every problem with its key's full name.

    Args:
        error: what pydantic found.
        root: the model of one profile.
        profile: the profile's name, with which every key begins.
        file: the file that was read.
    """
    lines = []
    for problem in error.errors():
        kind, (path, sections, siblings) = problem["type"], _place(problem["loc"], root)
        where = ".".join([profile, *(str(part) for part in path)])
        if kind == "extra_forbidden":
            whose = [name for name, keys in siblings.items() if path[-1] in keys.model_fields]
            belongs = f" of back end {problem['loc'][-2]} (it belongs to {', '.join(whose)})" if whose else ""
            allowed = [name for section in sections for name in section.model_fields if name != "profile"]
            lines.append(f"{where}: unknown key{belongs}; allowed here: {', '.join(allowed)}")
        elif kind == "missing":
            lines.append(f"{where}: missing")
        elif kind == "union_tag_not_found":
            lines.append(f"{where}.backend: missing; allowed here: {', '.join(back_ends(sections))}")
        elif kind == "union_tag_invalid":
            given, known = problem["ctx"]["tag"], ", ".join(back_ends(sections))
            lines.append(f"{where}.backend: no such back end; allowed here: {known}, got {given!r}")
        elif kind == "value_error":  # ours: it says all there is to say
            lines.append(f"{where}: {problem['ctx']['error']}")
        else:
            given = problem.get("input")
            hint = ""
            if isinstance(given, str) and kind.startswith("float"):
                hint = " (YAML reads 2e-5 as text: write 2.0e-5)"
            lines.append(f"{where}: {problem['msg']}, got {given!r}{hint}")
    return UserError(f"{file.name} does not fit:\n  " + "\n  ".join(lines), f"edit {file}")


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key of this type may hold: none, one, or one for each back end."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]


def back_ends(kind: Any) -> dict[str, type[BaseModel]]:
    """The sections among which `backend` chooses, by its value.

    Args:
        kind: a union of sections such as `Annotator`, or the sections themselves.
    """
    sections = kind if isinstance(kind, list) else _sections(kind)
    named = [section for section in sections if "backend" in section.model_fields]
    return {get_args(section.model_fields["backend"].annotation)[0]: section for section in named}


def _place(
    loc: tuple[Any, ...], root: type[BaseModel]
) -> tuple[tuple[Any, ...], list[type[BaseModel]], dict[str, type[BaseModel]]]:
    """Where a problem is.

    Returns:
        Its path as params.yaml has it (pydantic puts the back end's name behind an entry's place); the sections that may
        stand there, or for a key that no section has, the one around it; the back ends among which that one was chosen.
    """
    path, sections, siblings = [], [root], {}
    for part in loc:
        if len(sections) > 1 and part in (choices := back_ends(sections)):
            sections, siblings = [choices[part]], choices
            continue
        path.append(part)
        if isinstance(part, int):
            continue
        if part not in sections[0].model_fields:
            break  # the last part: nothing lies below an unknown key
        inner = _sections(sections[0].model_fields[part].annotation)
        if inner:
            sections, siblings = inner, {}
    return tuple(path), sections, siblings

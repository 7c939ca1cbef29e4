"""What does not fit in params.yaml, in the user's terms: the key's full name, what is allowed there, what was given."""

from pathlib import Path
from typing import Any, NamedTuple, get_args

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
            whose = [name for name, keys in siblings.sections.items() if path[-1] in keys.model_fields]
            belongs = ""
            if whose:
                belongs = f" of {siblings.noun} {problem['loc'][-2]} (it belongs to {', '.join(whose)})"
            allowed = [name for section in sections for name in section.model_fields if name != "profile"]
            lines.append(f"{where}: unknown key{belongs}; allowed here: {', '.join(allowed)}")
        elif kind == "missing":
            lines.append(f"{where}: missing")
        elif kind in ("union_tag_not_found", "union_tag_invalid"):
            union = choices(sections)
            one_of, given = f"allowed here: {', '.join(union.sections)}", problem.get("ctx", {}).get("tag")
            what = f"no such {union.noun}; {one_of}, got {given!r}" if given else f"missing; {one_of}"
            lines.append(f"{where}.{union.key}: {what}")
        elif kind == "value_error":  # ours: it says all there is to say
            lines.append(f"{where}: {problem['ctx']['error']}")
        else:
            given = problem.get("input")
            hint = ""
            if isinstance(given, str) and kind.startswith("float"):
                hint = " (YAML reads 2e-5 as text: write 2.0e-5)"
            lines.append(f"{where}: {problem['msg']}, got {given!r}{hint}")
    return UserError(f"{file.name} does not fit:\n  " + "\n  ".join(lines), f"edit {file}")


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key of this type may hold: none, one, or one for each back end."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in sections_of(inner)]


class Choices(NamedTuple):
    """Sections of which one stands at a place.

    Attributes:
        key: which of their keys says the one.
        sections: by that key's value.
    """

    key: str
    sections: dict[str, type[BaseModel]]

    @property
    def noun(self) -> str:
        return "back end" if self.key == "backend" else self.key


def choices(kind: Any) -> Choices:
    """What there is to choose from, and by which key: the one that has a single value of its own in every section.

    Args:
        kind: a union of sections such as `params.Annotator`, or a list of them.
    """
    sections = kind if isinstance(kind, list) else sections_of(kind)
    for key in sections[0].model_fields if sections else ():
        fields = [section.model_fields.get(key) for section in sections]
        values = [get_args(field.annotation) if field else () for field in fields]
        if all(len(value) == 1 and isinstance(value[0], str) for value in values):
            return Choices(key, {value[0]: s for value, s in zip(values, sections, strict=True)})
    return Choices("", {})


def _place(
    loc: tuple[Any, ...], root: type[BaseModel]
) -> tuple[tuple[Any, ...], list[type[BaseModel]], Choices]:
    """Where a problem is.

    Returns:
        Its path as params.yaml has it (pydantic puts the back end's name behind an entry's place); the
        sections that may stand there, or for a key that no section has, the one around it; the choices among
        which that one was.
    """
    path, sections, siblings = [], [root], Choices("", {})
    for part in loc:
        if len(sections) > 1 and part in (union := choices(sections)).sections:
            sections, siblings = [union.sections[part]], union
            continue
        path.append(part)
        if isinstance(part, int):
            continue
        if part not in sections[0].model_fields:
            break  # the last part: nothing lies below an unknown key
        inner = sections_of(sections[0].model_fields[part].annotation)
        if inner:
            sections, siblings = inner, Choices("", {})
    return tuple(path), sections, siblings

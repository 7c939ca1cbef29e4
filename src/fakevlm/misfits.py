"""What does not fit in params.yaml, in words: every problem that pydantic finds, by its place as the file has it.

Where the value of a key chooses among sections (an annotator's back end), pydantic puts that value into a problem's place, behind
the list's number or the section's name; in the file it is no step of the way, so it is taken out again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

Place = tuple[Any, ...]


@dataclass(frozen=True)
class Choices:
    """Sections among which the value of one key chooses.

    Attributes:
        name: what the key names, in words.
        sections: value → section.
    """

    name: str
    sections: Mapping[str, type[BaseModel]]


def explain(
    error: ValidationError, profile: str, model: type[BaseModel], unions: Mapping[str, Choices]
) -> list[str]:
    """One line a problem: the key's full name, what is wrong, and what is allowed.

    Args:
        error: what pydantic raised for `model`.
        profile: the section of params.yaml that was read.
        model: the sections as they should be.
        unions: by key, the choices that its value makes.
    """
    return [_line(problem, profile, _Steps(model, unions)) for problem in error.errors()]


def _line(problem: Any, profile: str, steps: "_Steps") -> str:
    kind, loc = problem["type"], problem["loc"]
    where = ".".join([profile, *map(str, steps.as_written(loc))])
    if kind == "extra_forbidden":
        return (
            f"{where}: unknown key{steps.elsewhere(loc)}; allowed here: {', '.join(steps.allowed(loc[:-1]))}"
        )
    if kind == "missing":
        return f"{where}: missing"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        context = problem["ctx"]
        key = context["discriminator"].strip("'")
        choices = steps.unions[key]
        said, got = (
            (f"no such {choices.name}", f", got {context['tag']!r}") if "tag" in context else ("missing", "")
        )
        return f"{where}.{key}: {said}; allowed here: {', '.join(choices.sections)}{got}"
    if kind == "value_error":  # ours: it says all there is to say
        return f"{where}: {problem['ctx']['error']}"
    given = problem.get("input")
    text = isinstance(given, str) and kind.startswith("float")
    hint = " (YAML reads 2e-5 as text: write 2.0e-5)" if text else ""
    return f"{where}: {problem['msg']}, got {given!r}{hint}"


@dataclass(frozen=True)
class _Steps:
    """The steps of a problem's place, followed through the sections."""

    model: type[BaseModel]
    unions: Mapping[str, Choices]

    def _walk(self, loc: Place) -> list[tuple[Any, Choices | None, Any]]:
        """Of each step: the step, the choices if it is the value of a choosing key, and the section or type it leads to."""
        here: Any = self.model
        found: list[tuple[Any, Choices | None, Any]] = []
        options: list[type] = []
        for part in loc:
            chosen = next(
                (c for c in self.unions.values() if c.sections.get(part) in options and options), None
            )
            if chosen:
                here, options = chosen.sections[part], []
            elif not isinstance(part, int):
                fields = getattr(here, "model_fields", {})
                annotation = fields[part].annotation if part in fields else None
                options = _sections(annotation)
                here = options[0] if options else None
            found.append((part, chosen, here))
        return found

    def as_written(self, loc: Place) -> Place:
        return tuple(part for part, chosen, _ in self._walk(loc) if chosen is None)

    def elsewhere(self, loc: Place) -> str:
        """Of an unknown key: which of the other choices has it."""
        part, chosen, _ = self._walk(loc[:-1])[-1] if len(loc) > 1 else (None, None, None)
        if chosen is None:
            return ""
        owners = [name for name, section in chosen.sections.items() if loc[-1] in section.model_fields]
        return f" of {chosen.name} {part} (it belongs to {', '.join(owners)})" if owners else ""

    def allowed(self, loc: Place) -> list[str]:
        section = self._walk(loc)[-1][2] if loc else self.model
        return [name for name in section.model_fields if name != "profile"]


def _sections(annotation: Any) -> list[type]:
    """All sections that a field's type names: itself, or those inside `X | None`, `list[…]`, `Annotated[…]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [s for inner in getattr(annotation, "__args__", ()) for s in _sections(inner)]

"""What a section of params.yaml is."""

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section that knows its keys: nothing unknown, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Fraction = Field(ge=0.0, le=1.0)

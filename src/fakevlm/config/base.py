"""What a section of params.yaml is."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fakevlm.errors import UserError


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no silent conversion."""

    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _only_its_keys(cls, values: Any) -> Any:
        if isinstance(values, dict) and (
            unknown := [str(key) for key in values if key not in cls.model_fields]
        ):
            allowed = ", ".join(key for key in cls.model_fields if key != "profile")
            raise ValueError(f"unknown key {', '.join(unknown)}; allowed here: {allowed}")
        return values


Fraction = Field(ge=0.0, le=1.0)

# Channels of a trained layer. On processors with AVX2 and no AVX-512, torch 2.15 (oneDNN 3.13.3) writes
# outside its memory in the backward pass of strided 1 x 1 convolutions in channels-last layout whose channels
# are no multiple of 8.
Width = Annotated[int, Field(ge=8, multiple_of=8)]


def check_widths(network: str, *widths: int) -> None:
    """Check the channels of a network that is about to be built (see `Width`).

    Raises:
        UserError: one is not a multiple of 8.
    """
    for width in widths:
        if width < 8 or width % 8:
            raise UserError(
                f"{network}: a layer of {width} channels can corrupt memory on processors with AVX2 alone",
                "choose widths that are multiples of 8",
            )

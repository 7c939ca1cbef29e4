"""What a section of params.yaml is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fakevlm.errors import UserError


class Section(BaseModel):
    """A section that knows its keys: nothing unknown, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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

"""Training by several processes (finetune.deepspeed)."""

from typing import Literal

from pydantic import Field, model_validator

from fakevlm.config.base import Section


class DeepSpeed(Section):
    """Training by several processes: how many, where, and what ZeRO spreads over them."""

    stage: Literal[2, 3]  # of ZeRO: 2 spreads gradients and the optimizer's state, 3 the weights as well
    # To the node's memory: the optimizer's state, or that and the weights (stage 3).
    offload: Literal["optimizer", "parameters"] | None = None
    processes: int = Field(ge=1)  # a node; one a GPU
    nodes: int = Field(default=1, ge=1)
    hostfile: str | None = (
        None  # DeepSpeed's: a line `name slots=8` a node; null: this machine alone, or Slurm
    )

    @model_validator(mode="after")
    def _offloadable(self) -> "DeepSpeed":
        if self.offload == "parameters" and self.stage != 3:
            raise ValueError("offload: parameters needs stage: 3; stage 2 keeps all weights on every GPU")
        return self

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes

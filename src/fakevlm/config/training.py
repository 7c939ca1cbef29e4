"""How a LLaVA is trained (params.yaml: training), in one process or several."""

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
    # DeepSpeed's: a line `name slots=8` a node; null: this machine alone, or Slurm.
    hostfile: str | None = None

    @model_validator(mode="after")
    def _offloadable(self) -> "DeepSpeed":
        if self.offload == "parameters" and self.stage != 3:
            raise ValueError("offload: parameters needs stage: 3; stage 2 keeps all weights on every GPU")
        return self

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes


class Training(Section):
    """What the trainings of stages study and finetune share."""

    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    vision_learning_rate: float | None = Field(gt=0)  # of the vision tower; null: learning_rate
    warmup_ratio: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    precision: Literal["fp32", "bf16"]
    max_length: int = Field(ge=16)
    train_vision: bool
    train_projector: bool
    train_llm: bool
    mirror: bool
    gradient_checkpointing: bool
    checkpoint_every: int = Field(ge=1)
    deepspeed: DeepSpeed | None  # null: in one process

    @model_validator(mode="after")
    def _something_trains(self) -> "Training":
        if self.vision_learning_rate is not None and not self.train_vision:
            raise ValueError(
                "vision_learning_rate is set, but the vision tower is frozen: "
                "set train_vision: true, or vision_learning_rate: null"
            )
        return self

    @property
    def ranks(self) -> int:
        """Processes that train together; a step sees the batches of all of them."""
        return self.deepspeed.ranks if self.deepspeed else 1

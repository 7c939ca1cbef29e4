"""The processes of one training: which of them this is, what they agree on, where they wait for each other.

A launcher (`torchrun`, `deepspeed`) tells each process by environment variables. Without one there is a single process, and
nothing here does anything.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

# Rank 0 hashes the base model and the data while the others wait; 14 GB from a slow disk take minutes.
PATIENCE = timedelta(hours=1)


def launched() -> bool:
    """Whether a launcher started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def count() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def join() -> None:
    """Connects this process to the others: NCCL between GPUs, Gloo between CPUs."""
    import deepspeed

    # DeepSpeed would compile a faster exchange for CPUs, which takes minutes and is of use to nobody: CPUs only test this.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # By DeepSpeed, which must know of the connection before ZeRO-3 loads the model.
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=PATIENCE)


def leave() -> None:
    """Ends the connection."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def agree(make: Callable[[], T]) -> T:
    """What `make` returns in rank 0, in all of them: two nodes may see a shared folder differently for a while."""
    if not distributed.is_initialized():
        return make()
    told = [make() if rank() == 0 else None]
    distributed.broadcast_object_list(told)
    return told[0]  # type: ignore[return-value]


def wait() -> None:
    """Returns once all ranks are here."""
    if distributed.is_initialized():
        distributed.barrier()

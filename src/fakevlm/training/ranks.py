"""The processes ("ranks") of one training, started by `torchrun`, `deepspeed` or `srun`."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")

# Rank 0 hashes the base model and the data while the others wait; 14 GB from a slow disk take minutes.
TIMEOUT = timedelta(hours=1)


def connect() -> None:
    """Connect this process to the others: NCCL between GPUs, Gloo between CPUs."""
    import deepspeed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:  # CPUs only test this; DeepSpeed would compile a faster exchange for them, for minutes
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # DeepSpeed must know of the connection before ZeRO-3 loads the model.
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=TIMEOUT)


def rank() -> int:
    """Return this process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def agree(compute: Callable[[], T]) -> T:
    """Return what `compute` returns in rank 0. Nodes may see a shared folder differently for a while."""
    if not distributed.is_initialized():
        return compute()
    values = [compute() if rank() == 0 else None]
    distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def wait() -> None:
    """Return once all ranks are here."""
    if distributed.is_initialized():
        distributed.barrier()


def disconnect() -> None:
    """Wait for the others, then end the connection."""
    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()

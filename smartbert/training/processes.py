"""Several processes under `torchrun`: which one this is, and means over the texts of all of them.

Several processes minimize exactly what one would. Gradients are averaged over the processes afterwards, so each
process's loss must be such that the average of the losses is the loss of the whole batch.
"""

from __future__ import annotations

import atexit
import gc

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor


def this_process() -> PartialState:
    """Which of the processes this one is; the first call joins it to the others.

    On a machine without accelerator a bare PartialState() takes each process for the only one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


@atexit.register
def leave_others() -> None:
    """End the connection's threads before the interpreter ends.

    A thread that releases a tensor after that needs an interpreter which is gone, and aborts a run whose work is done.
    The threads are joined when the last reference to the connection is dropped, and the Trainer's models hold some
    references in cycles.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def processes() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of all processes' `value`; each process must do the same with it.

    The gradient reaches this process's value only, undivided: once gradients are averaged it is that of a mean.
    """
    if processes() == 1:
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return value + (mean / processes() - value).detach()


def share_of_mean(total: Tensor, count: Tensor) -> Tensor:
    """This process's part of (sum of all totals) / (sum of all counts): the parts average to it over processes.

    One process: total / count. The count carries no gradient.
    """
    if processes() > 1:
        count = count.detach().clone().float()
        dist.all_reduce(count)
        count = count / processes()
    return total / count.clamp(min=1e-6)

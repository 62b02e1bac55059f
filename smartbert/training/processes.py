"""One of several processes under `torchrun`: which one this is, and means over the texts of all of them.

Several processes minimize exactly what one would. Gradients are averaged over the processes afterwards, so each one's
loss has to be such that the average of the losses is the loss of the whole batch.
"""

from __future__ import annotations

import atexit
import gc

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor


def this_process() -> PartialState:
    """Which of the processes this one is; the first call lets it join the others.

    A bare PartialState() takes each process of a machine without accelerator for the only one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


@atexit.register
def leave_others() -> None:
    """End the connection's threads before the interpreter ends.

    One that still lets go of a tensor then asks for an interpreter which is gone, and aborts a run whose work is done.
    They are joined when the last reference to the connection goes, and the Trainer's models hold some in cycles.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def processes() -> int:
    """How many processes train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of every process's `value`; each process must do the same with it.

    The gradient goes to this process's value alone, and undivided: that of a mean once gradients are averaged.
    """
    if processes() == 1:
        return value
    mean = value.detach().clone()
    dist.all_reduce(mean)
    return value + (mean / processes() - value).detach()


def share_of_mean(total: Tensor, count: Tensor) -> Tensor:
    """This process's part of (sum of all totals) / (sum of all counts): the parts' average over processes is that mean.

    One process: total / count. The count carries no gradient.
    """
    if processes() > 1:
        count = count.detach().clone().float()
        dist.all_reduce(count)
        count = count / processes()
    return total / count.clamp(min=1e-6)

"""length_grouping.py: like lengths together, another order each epoch, and one order for any number of processes."""

from __future__ import annotations

import random

import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from smartbert.training.length_grouping import LengthGrouped

LENGTHS = random.Random(0).choices(range(3, 60), k=96)


def _order(*, epoch: int = 0, seed: int = 7, step_texts: int = 8) -> list[int]:
    return list(LengthGrouped(LENGTHS, step_texts, seed=seed, epoch=lambda: epoch))


def _spread(order: list[int]) -> float:
    """The mean difference between the longest and the shortest text of a step."""
    steps = [[LENGTHS[row] for row in order[first : first + 8]] for first in range(0, len(order), 8)]
    return sum(max(step) - min(step) for step in steps) / len(steps)


def test_every_text_comes_once() -> None:
    assert sorted(_order()) == list(range(len(LENGTHS)))
    assert len(LengthGrouped(LENGTHS, 8, seed=7, epoch=lambda: 0)) == len(LENGTHS)


def test_steps_of_like_length() -> None:
    assert _spread(_order()) < _spread(list(range(len(LENGTHS)))) / 2


def test_order_depends_on_seed_and_epoch() -> None:
    before = _order()
    torch.manual_seed(12345)  # a resumed run, or another process, has drawn other numbers
    assert _order() == before
    assert _order(epoch=1) != before
    assert _order(seed=8) != before


def test_epoch_is_read_when_it_begins() -> None:
    epochs = iter((0, 1))
    sampler = LengthGrouped(LENGTHS, 8, seed=7, epoch=lambda: next(epochs))
    assert [list(sampler), list(sampler)] == [_order(epoch=0), _order(epoch=1)]


def test_two_processes_share_each_step() -> None:
    # As accelerate deals: batch 2k to process 0, batch 2k + 1 to process 1.
    alone = list(BatchSampler(LengthGrouped(LENGTHS, 8, seed=7, epoch=lambda: 3), 8, drop_last=False))
    halves = [
        list(
            BatchSamplerShard(
                BatchSampler(LengthGrouped(LENGTHS, 8, seed=7, epoch=lambda: 3), 4, drop_last=False),
                num_processes=2,
                process_index=rank,
            )
        )
        for rank in (0, 1)
    ]
    assert [first + second for first, second in zip(*halves, strict=True)] == alone

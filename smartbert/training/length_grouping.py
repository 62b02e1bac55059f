"""The order in which a stage reads its texts: similar lengths together, and the same order in all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGrouped(Sampler[int]):
    """Row numbers, reshuffled for each epoch, then grouped so that the texts of one step have similar lengths.

    The Trainer's own sampler draws from the process's random state and groups by one process's batch: under torchrun
    the processes would go through the texts in different orders, some texts twice and others never. Here the order
    depends on the seed and the epoch only, and a group is a step's texts over all processes: in every step two
    processes with 4 texts each read what one with 8 reads, and a resumed run reads what an unbroken one does.
    (Where the data set is not a multiple of a step's texts, several processes fill the last step of an epoch with texts
    from its first one, and one process does not.)

    lengths: of each text, in tokens. step_texts: texts of one step, all processes together.
    epoch: the number of the epoch that begins, from 0.
    """

    def __init__(self, lengths: Sequence[int], step_texts: int, *, seed: int, epoch: Callable[[], int]) -> None:
        self.lengths, self.step_texts, self.seed, self.epoch = lengths, step_texts, seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return iter(get_length_grouped_indices(self.lengths, self.step_texts, generator=generator))

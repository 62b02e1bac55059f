"""The saved epochs of a stage: which of them are whole, and which are kept.

The Trainer writes an epoch's folder file by file; a process killed meanwhile leaves half of one, and nothing in it
says so. Here an epoch counts only once a marker stands in its folder, written after everything else.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from smartbert.training.processes import this_process

MARKER = "complete"


class MarkAndRotate(TrainerCallback):
    """Marks each saved epoch, then removes those that are neither the last nor the best."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the best epoch of a resumed run where it is now.

        The Trainer noted its path as it was then. Resumed from another working directory or after the folder was
        moved, it would not find it and would end, unasked, with the last epoch's weights.
        """
        best = Path(str(args.output_dir)) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called when all files of the epoch are written."""
        process = this_process()
        process.wait_for_everyone()  # each process writes its random state into the folder
        if not process.is_main_process:
            return
        folder = Path(str(args.output_dir))
        last = folder / f"checkpoint-{state.global_step}"
        (last / MARKER).touch()
        keep = {last.name, f"checkpoint-{state.best_global_step}"}
        for epoch in _epochs(folder):
            if epoch.name not in keep:
                # First the marker: a half-removed epoch must not count.
                (epoch / MARKER).unlink(missing_ok=True)
                shutil.rmtree(epoch)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called when the best epoch is read back: until all processes have it, none may remove the folder."""
        this_process().wait_for_everyone()


def last_complete(folder: Path) -> Path | None:
    """The newest saved epoch that is whole."""
    return next((epoch for epoch in reversed(_epochs(folder)) if (epoch / MARKER).exists()), None)


def remove_incomplete(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    if this_process().is_main_process:
        for epoch in _epochs(folder):
            if not (epoch / MARKER).exists():
                shutil.rmtree(epoch)
    this_process().wait_for_everyone()


def _epochs(folder: Path) -> list[Path]:
    """The stage's saved epochs, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda epoch: int(epoch.name.rpartition("-")[2]))

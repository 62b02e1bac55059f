"""The saved epochs of a stage: which of them are complete, and which are kept.

The Trainer writes an epoch's folder file by file; a process killed meanwhile leaves half of one, and nothing in the
folder shows it. Here an epoch counts only with a marker file in its folder, which is written last.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from smartbert.training.processes import this_process

MARKER = "complete"


class MarkAndRotate(TrainerCallback):
    """Marks each saved epoch as complete, then removes those that are neither the last nor the best."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Point the Trainer to where a resumed run's best epoch is now.

        It stored the path as it was then. Resumed from another working directory, or after the folder was moved, it
        would not find that path and would silently end with the last epoch's weights.
        """
        best = Path(str(args.output_dir)) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Runs when all files of the epoch are written."""
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
        """Runs when the best epoch has been read back: until all processes have it, none may remove the folder."""
        this_process().wait_for_everyone()


def last_complete(folder: Path) -> Path | None:
    """The newest complete epoch."""
    return next((epoch for epoch in reversed(_epochs(folder)) if (epoch / MARKER).exists()), None)


def remove_incomplete(folder: Path) -> None:
    """Remove the epoch that a killed process left half-written."""
    if this_process().is_main_process:
        for epoch in _epochs(folder):
            if not (epoch / MARKER).exists():
                shutil.rmtree(epoch)
    this_process().wait_for_everyone()


def _epochs(folder: Path) -> list[Path]:
    """The stage's saved epochs, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda epoch: int(epoch.name.rpartition("-")[2]))

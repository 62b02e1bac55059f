"""What a training reports as it runs: a bar on a terminal, else a line now and then, and a line per evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# Receives the lines of a training's log, one call a line; all of them stay.
Log = Callable[[str], None]

SECONDS_BETWEEN_LINES = 10.0


class Progress(TrainerCallback):
    """Logs one stage; replaces the Trainer's own printers, which write to stdout."""

    def __init__(self, stage: str, log: Log, *, bar: bool) -> None:
        self.stage, self.log, self.bar = stage, log, bar
        self._bar: Any = None
        self._began = self._last_line = 0.0
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start counting, from the middle where a run is resumed."""
        self._began = self._last_line = time.monotonic()
        self._first_step = state.global_step
        if self.bar and state.is_world_process_zero:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.stage, unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar, or log every few seconds where the run is."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        elif state.is_world_process_zero and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            pace = (now - self._began) / max(1, state.global_step - self._first_step)
            left = pace * (state.max_steps - state.global_step)
            loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
            shown = "" if loss is None else f"  loss {loss:.4f}"
            self.log(f"{self.stage}: step {state.global_step}/{state.max_steps}{shown}  about {left:.0f} s left")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log the figures on the validation texts."""
        if state.is_world_process_zero and metrics:
            skips = _by_layer(metrics, "eval_skip_rate_")
            exits = _by_layer(metrics, "eval_exit_accuracy_")
            self.log(
                f"{self.stage}: epoch {state.epoch or 0:.0f}  validation accuracy {metrics['eval_accuracy']:.4f}  "
                f"layers run {metrics['eval_layers_run']:.2f}  skip rate {skips}  exit accuracy {exits}"
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _by_layer(metrics: dict[str, float], prefix: str) -> str:
    return "[" + " ".join(f"{metrics[key]:.2f}" for key in sorted(metrics) if key.startswith(prefix)) + "]"

"""What test_processes.py runs, in its own process and in two under torchrun: stages on the same texts, all losses kept.

torchrun --nproc_per_node 2 processes_worker.py FOLDER, with CHECKPOINT, TEXTS, SETTINGS and COMMAND in it; the results
of each of the settings go to RESULTS.
"""

from __future__ import annotations

import atexit
import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from transformers import AutoTokenizer

from smartbert.cli.train import main
from smartbert.data.splits import Split
from smartbert.evaluation.recording import tokenize
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.training import losses
from smartbert.training.objectives import Objective
from smartbert.training.processes import leave_others, mean_over_processes, processes, share_of_mean, this_process
from smartbert.training.settings import TrainingSettings
from smartbert.training.stages import run_stage
from smartbert_runtime.errors import TrainingError

CHECKPOINT, TEXTS, SETTINGS, COMMAND = "checkpoint", "texts.json", "settings.json", "command.json"
RESULTS = "results.json"
THREADS = "threads-at-the-end-of-{rank}.json"

TEXTS_A_STEP = 8

gc.freeze()  # as in tests/smartbert/conftest.py


def train_both_stages(folder: Path, work: Path, settings: TrainingSettings) -> dict[str, Any]:
    """Each batch's loss, averaged over the processes, and the figures of the epochs' evaluations."""
    settings = replace(settings, batch_size=TEXTS_A_STEP // settings.gradient_accumulation_steps // processes())
    model, splits, tokenizer = _open(folder)
    noted: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, Objective) and module.training:
            noted.append(output["loss"].detach().clone())

    hook = register_module_forward_hook(note)
    logs = [
        run_stage(stage, model, splits, tokenizer, settings, work, bar=False, log=lambda line: None) for stage in (1, 2)
    ]
    hook.remove()
    losses = torch.stack(noted)
    if processes() > 1:
        dist.all_reduce(losses)
    timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    evaluations = [{name: entry[name] for name in entry if name not in timings} for log in logs for entry in log]
    return {"losses": (losses / processes()).tolist(), "evaluations": evaluations}


def _open(folder: Path) -> tuple[SmartBertForSequenceClassification, dict[str, Dataset], Any]:
    """The model without dropout: two processes draw other random numbers than one."""
    tokenizer = AutoTokenizer.from_pretrained(folder / CHECKPOINT)
    model = SmartBertForSequenceClassification.from_pretrained(folder / CHECKPOINT)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    splits = {}
    for name, texts in json.loads((folder / TEXTS).read_text(encoding="utf-8")).items():
        label_ids = tuple(len(text) % 3 for text in texts)
        splits[name] = tokenize(Split(texts=tuple(texts), pairs=None, label_ids=label_ids), tokenizer, 24)
    return model, splits, tokenizer


def _means() -> dict[str, float]:
    """1 / mean and total / count of what the processes hold, with theta = 2, and their gradients in theta.

    Process 0 holds theta, and 3 theta^2 over 1 text; process 1 holds 2 theta, and 5 theta^2 over 3 texts.
    """
    rank = dist.get_rank()
    results = {}
    for name in ("mean", "share"):
        theta = torch.tensor(2.0, requires_grad=True)
        if name == "mean":
            loss = 1.0 / mean_over_processes(theta * (rank + 1))
        else:
            loss = share_of_mean((3 + 2 * rank) * theta**2, torch.tensor(1 + 2 * rank))
        loss.backward()
        assert theta.grad is not None
        both = torch.stack([loss.detach(), theta.grad])
        dist.all_reduce(both)  # as the Trainer averages losses and gradients
        results[name], results[f"{name} gradient"] = (both / processes()).tolist()
    return results


def _poisoned(folder: Path, settings: TrainingSettings) -> list[str | None]:
    """What each process raises when at the third step the weights of the second one only are not numbers."""
    model, splits, tokenizer = _open(folder)
    # No term whose value all processes share: the first one's own loss stays a number.
    settings = replace(settings, gate_lambda=0.0, batch_size=TEXTS_A_STEP // processes())
    batches: list[int] = []

    def poison(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, Objective) and module.training:
            batches.append(1)
            if len(batches) == 3 and not this_process().is_main_process:
                nn.init.constant_(next(model.exits[-1].parameters()), float("nan"))

    hook = register_module_forward_pre_hook(poison)
    raised: str | None = None
    try:
        run_stage(1, model, splits, tokenizer, settings, folder / "poisoned", bar=False, log=lambda line: None)
    except TrainingError as err:
        raised = str(err)
    hook.remove()
    both: list[str | None] = [None] * processes()
    dist.all_gather_object(both, raised)
    return both


def _unreduced(folder: Path, settings: TrainingSettings) -> dict[str, Any]:
    """As without processes.py: each process takes the means over its own texts only."""
    vars(losses).update(
        mean_over_processes=lambda value: value,
        share_of_mean=lambda total, count: total / count.clamp(min=1e-6),
    )
    results = train_both_stages(folder, folder / "unreduced", replace(settings, stage1_epochs=1, soft_epochs=1))
    vars(losses).update(mean_over_processes=mean_over_processes, share_of_mean=share_of_mean)
    return results


def _note_threads(folder: Path, rank: int) -> None:
    """The names of the process's threads, Python's and the others."""
    names = [file.read_text(encoding="utf-8").strip() for file in Path("/proc/self/task").glob("*/comm")]
    (folder / THREADS.format(rank=rank)).write_text(json.dumps(names), encoding="utf-8")


def _under_torchrun(folder: Path) -> None:
    # The command first: as for a user, it is what joins the processes.
    sys.argv = ["smartbert-train", *json.loads((folder / COMMAND).read_text(encoding="utf-8"))]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    results: dict[str, Any] = {"means": _means()}
    given = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    for name, settings in given.items():
        results[name] = train_both_stages(folder, folder / name, TrainingSettings(**settings))
    first = TrainingSettings(**next(iter(given.values())))
    results |= {"poisoned": _poisoned(folder, first), "unreduced": _unreduced(folder, first)}
    if this_process().is_main_process:
        (folder / RESULTS).write_text(json.dumps(results), encoding="utf-8")
    # What is registered last runs first: this is what is left once the processes have left each other.
    atexit.unregister(leave_others)
    atexit.register(_note_threads, folder, dist.get_rank())
    atexit.register(leave_others)


if __name__ == "__main__":
    _under_torchrun(Path(sys.argv[1]))

"""python -m studies.performance.export_cost: an export's seconds, and its peak memory above that of the imports.

A tiny model with the checkpoint's tokenizer is exported first, so that everything is imported; then the process's peak
is reset, and the real export is measured step by step. Linux only.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Annotated

import onnxruntime
import torch
import typer

from smartbert.checkpoint_folder import load_tokenizer
from smartbert.configuration import SmartBertConfig
from smartbert.library_logging import quiet_libraries
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import is_plain
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.precisions import PRECISIONS
from smartbert_export.source_checkpoint import CONFIG_FILE, WEIGHTS_FILE
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.errors import InputError
from smartbert_runtime.reporting import Reporter
from studies.performance.proc_memory import peak_mb, reset_peak, resident_mb


class _StepCosts(Reporter):
    """Seconds of each kind of step and the process's peak memory during it, MB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}
        self._kind, self._started = "reading", time.perf_counter()

    def step(self, text: str) -> None:
        """A step begins, so the previous one has ended; steps are of one kind if they begin with the same word."""
        now = time.perf_counter()
        self.seconds[self._kind] = self.seconds.get(self._kind, 0.0) + now - self._started
        self.peak_mb[self._kind] = max(self.peak_mb.get(self._kind, 0.0), peak_mb())
        reset_peak()
        self._kind, self._started = text.split(": ")[-1].split()[0], now


def measure_export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder.")],
    file: Annotated[Path, typer.Option(help="Texts that decide what may be quantized.")],
    layout: Annotated[list[str], typer.Option(help="Layouts; repeatable.")] = list(LAYOUTS[:2]),  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="Precisions; repeatable.")] = list(PRECISIONS[:1]),  # noqa: B006
) -> None:
    """Export once, and print seconds and peak memory with the conditions."""
    reset_peak()  # raises on other systems
    quiet_libraries()
    if is_plain(str(json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8")).get("model_type"))):
        raise InputError(f"{checkpoint} is a plain classifier", hint="give a checkpoint of smartbert-train")
    options = ExportOptions(graphs=GraphOptions(layouts=tuple(layout), precisions=tuple(precision)), check_file=file)
    with tempfile.TemporaryDirectory() as temporary:
        tiny = _tiny(checkpoint, Path(temporary))
        export_package(tiny, Path(temporary) / "tiny-package", options)
        before = resident_mb()
        reset_peak()
        costs = _StepCosts()
        started = time.perf_counter()
        export_package(checkpoint, Path(temporary) / "package", options, reporter=costs)
        seconds = time.perf_counter() - started
        costs.step("end")
    size = (checkpoint / WEIGHTS_FILE).stat().st_size / 1e6
    peak = max(costs.peak_mb.values()) - before
    print("| step | seconds | peak above the imports, MB |\n|---|---|---|")
    for step, spent in costs.seconds.items():
        print(f"| {step} | {spent:.1f} | {costs.peak_mb[step] - before:.0f} |")
    print(
        f"\n{checkpoint.name}, {' + '.join(layout)}, {' + '.join(precision)}: {seconds:.1f} s; peak {peak:.0f} MB "
        f"above the {before:.0f} MB of the imports, {peak / size:.2f}x the checkpoint's {size:.0f} MB; "
        f"{os.cpu_count()} {platform.machine()} cores, load average {os.getloadavg()[0]:.1f}; "
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}"
    )


def _tiny(checkpoint: Path, work: Path) -> Path:
    """A random checkpoint of the same kind with hardly any weights."""
    config = SmartBertConfig.from_dict(json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8")))
    config.backbone_config |= {
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    config.head_width = 8
    tiny = work / "tiny"
    SmartBertForSequenceClassification(config).save_pretrained(tiny)
    load_tokenizer(str(checkpoint), vocab_size=int(config.backbone_config["vocab_size"])).save_pretrained(tiny)
    (tiny / "golden_texts.jsonl").write_bytes((checkpoint / "golden_texts.jsonl").read_bytes())
    return tiny


if __name__ == "__main__":
    run_command(measure_export)

"""python -m studies.performance.export_cost: an export's seconds, and its peak memory above the imports (Linux).

A tiny model with the checkpoint's tokenizer is exported first, so that everything is imported; then the process's peak
is set back, and the real export is watched step by step.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass, field
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
from smartbert_export.quantize.weights import PRECISIONS
from smartbert_export.source_checkpoint import CONFIG_FILE, WEIGHTS_FILE
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.errors import InputError

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class _Watch:
    """Seconds of each kind of step and the process's peak in it, MB."""

    step: str = "reading"
    started: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """A step begins: the one before has ended."""
        now = time.perf_counter()
        self.seconds[self.step] = self.seconds.get(self.step, 0.0) + now - self.started
        self.peak_mb[self.step] = max(self.peak_mb.get(self.step, 0.0), _memory_mb("VmHWM"))
        _RESET.write_text("5", encoding="ascii")
        self.step, self.started = line.split()[0], now


def measure(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder.")],
    file: Annotated[Path, typer.Option(help="Texts that decide what may be quantized.")],
    layout: Annotated[list[str], typer.Option(help="Layouts; repeatable.")] = list(LAYOUTS[:2]),  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="Precisions; repeatable.")] = list(PRECISIONS[:1]),  # noqa: B006
) -> None:
    """Export once, and print seconds and peak memory with their conditions."""
    if not _RESET.exists():
        raise InputError("peak memory is read from /proc, as Linux has it", hint="run this on Linux")
    quiet_libraries()
    if is_plain(str(json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8")).get("model_type"))):
        raise InputError(f"{checkpoint} is a plain classifier", hint="give a checkpoint of smartbert-train")
    options = ExportOptions(graphs=GraphOptions(layouts=tuple(layout), precisions=tuple(precision)), check_file=file)
    with tempfile.TemporaryDirectory() as temporary:
        tiny = _tiny(checkpoint, Path(temporary))
        export_package(tiny, Path(temporary) / "tiny-package", options)
        before = _memory_mb("VmRSS")
        _RESET.write_text("5", encoding="ascii")
        watch = _Watch(started=time.perf_counter())
        started = watch.started
        export_package(checkpoint, Path(temporary) / "package", options, say=watch.say)
        seconds = time.perf_counter() - started
        watch.say("end")
    size = (checkpoint / WEIGHTS_FILE).stat().st_size / 1e6
    peak = max(watch.peak_mb.values()) - before
    print("| step | seconds | peak above the imports, MB |\n|---|---|---|")
    for step, spent in watch.seconds.items():
        print(f"| {step} | {spent:.1f} | {watch.peak_mb[step] - before:.0f} |")
    print(
        f"\n{checkpoint.name}, {' + '.join(layout)}, {' + '.join(precision)}: {seconds:.1f} s; peak {peak:.0f} MB "
        f"above the {before:.0f} MB of the imports, {peak / size:.2f}x the checkpoint's {size:.0f} MB; "
        f"{os.cpu_count()} {platform.machine()} cores, load average {os.getloadavg()[0]:.1f}; "
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, Python {platform.python_version()}"
    )


def _tiny(checkpoint: Path, work: Path) -> Path:
    """A random checkpoint of the same kind with next to no weights."""
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


def _memory_mb(field: str) -> float:
    """A figure of the process's status in MB: VmRSS, what it holds; VmHWM, the most it held since the last reset."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1000.0 * 1.024
    raise AssertionError(f"no {field} in {_STATUS}")


if __name__ == "__main__":
    run_command(measure)

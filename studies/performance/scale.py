"""python -m studies.performance.scale: time per text and memory, from a hundred texts to a hundred thousand."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime import SmartBert, share_thread_pool
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from studies.performance.append_record import append_record, conditions_line
from studies.performance.proc_memory import resident_mb

IMPORTS = {
    "onnxruntime, numpy, tokenizers": "import onnxruntime, numpy, tokenizers",
    "smartbert_runtime": "import smartbert_runtime",
}


def measure_scale(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    file: Annotated[Path, typer.Option(help="Real texts; repeated as often as needed.")],
    counts: Annotated[str, typer.Option(help="Numbers of texts.")] = "100,1000,10000,100000",
    layout: Annotated[str | None, typer.Option(help="Layout; default: the package's first.")] = None,
    batch_size: Annotated[int, typer.Option(help="Texts per batch.")] = 32,
    threads: Annotated[int | None, typer.Option(help="Cores; default: all this process may use.")] = None,
    imports: Annotated[int, typer.Option(help="Fresh interpreters for the time of importing; 0 for none.")] = 15,
    save: Annotated[Path | None, typer.Option(help="Append the figures to this file, one JSON object a line.")] = None,
) -> None:
    """Print milliseconds per text and resident memory for each count, and what importing the runtime costs."""
    share_thread_pool(threads)
    model = SmartBert.load(package, layout=layout, threads=threads, preload=True)
    texts = read_examples(file, Columns()).texts
    for _ in model.stream(itertools.islice(itertools.cycle(texts), 2000), batch_size=batch_size):
        pass
    before = resident_mb()
    scale = []
    print("| texts | ms per text | MB above the start |\n|---|---|---|")
    for count in map(int, counts.split(",")):
        started = time.perf_counter()
        answered = sum(1 for _ in model.stream(itertools.islice(itertools.cycle(texts), count), batch_size=batch_size))
        milliseconds = (time.perf_counter() - started) * 1000.0 / answered
        scale.append({"texts": answered, "ms_a_text": milliseconds, "mb_above_the_start": resident_mb() - before})
        print(f"| {answered} | {milliseconds:.3f} | {scale[-1]['mb_above_the_start']:+.1f} |", flush=True)
    import_ms: dict[str, float] = {}
    if imports:
        import_ms = {name: _import_ms(code, imports) for name, code in IMPORTS.items()}
        print("\n" + ", ".join(f"{name}: {best:.0f} ms" for name, best in import_ms.items()) + " to import (median)")
    conditions = (
        f"{package.name}, {model.sessions.variant.name}, batch {batch_size}, {conditions_line(model.sessions.threads)}"
    )
    print(f"\n{conditions}")
    append_record(save, {"conditions": conditions, "scale": scale, "import_ms": import_ms})


def _import_ms(code: str, times: int) -> float:
    """Median milliseconds that a fresh interpreter needs for `code` beyond its own start."""
    return sorted(_run_seconds(["-c", code]) - _run_seconds(["-c", ""]) for _ in range(times))[times // 2] * 1000.0


def _run_seconds(arguments: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    run_command(measure_scale)

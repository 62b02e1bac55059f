"""python -m studies.performance.memory: what onnxruntime's memory settings save, and what they cost in time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime import SmartBert, share_thread_pool
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.sessions.threads import available_threads
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer
from studies.performance.append_record import append_record, conditions_line
from studies.performance.proc_memory import peak_mb, resident_mb

# Name -> whether sessions keep their working memory in an arena, and session config entries.
SETTINGS: dict[str, tuple[bool, dict[str, str]]] = {
    "as shipped": (True, {}),
    "an arena for each session": (True, {"session.use_env_allocators": "0"}),
    "no arena": (False, {}),
    "no prepacking": (True, {"session.disable_prepacking": "1"}),
    "no arena, no prepacking": (False, {"session.disable_prepacking": "1"}),
}


def compare_settings(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    file: Annotated[Path, typer.Option(help="Real texts.")],
    layout: Annotated[str | None, typer.Option(help="Layout; default: the package's first.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision; default: the package's first.")] = None,
    texts: Annotated[int, typer.Option(help="Number of texts, classified one by one at full depth.")] = 200,
    repeats: Annotated[int, typer.Option(help="Fresh processes for each setting, in turns.")] = 3,
    save: Annotated[Path | None, typer.Option(help="Append the figures to this file, one JSON object a line.")] = None,
    setting: Annotated[str | None, typer.Option(help="Only this one, as JSON.", hidden=True)] = None,
) -> None:
    """Print resident memory and milliseconds per text for each setting, each in its own processes."""
    if setting is not None:
        print(json.dumps(_measure_one(package, file, layout, precision, texts, setting)))
        return
    measured: dict[str, list[list[float]]] = {name: [] for name in SETTINGS}
    for _ in range(repeats):
        for name, rows in measured.items():
            arguments = [*sys.argv[1:], "--setting", name]
            command = [sys.executable, "-m", "studies.performance.memory", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))
    print("| setting | MB loaded | MB after the texts | MB at most | ms per text |\n|---|---|---|---|---|")
    medians: dict[str, dict[str, float]] = {}
    for name, rows in measured.items():
        loaded, steady, peak, milliseconds = (statistics.median(column) for column in zip(*rows, strict=True))
        medians[name] = {"mb_loaded": loaded, "mb_after": steady, "mb_peak": peak, "ms_a_text": milliseconds}
        print(f"| {name} | {loaded:.0f} | {steady:.0f} | {peak:.0f} | {milliseconds:.2f} |")
    conditions = (
        f"{package.name}, {layout or 'first layout'}, {precision or 'first precision'}, {texts} texts one by one at "
        f"full depth, medians of {repeats} processes; {conditions_line(available_threads())}"
    )
    print(f"\n{conditions}")
    append_record(save, {"conditions": conditions, "memory": medians})


def _measure_one(
    folder: Path, file: Path, layout: str | None, precision: str | None, count: int, setting: str
) -> tuple[float, float, float, float]:
    """MB loaded, MB after the texts, MB at most, and the median milliseconds per text."""
    arena, config = SETTINGS[setting]
    share_thread_pool()
    package = open_package(folder)
    sessions = Sessions(package, package.manifest.variant(layout, precision), arena=arena, session_config=config)
    sessions.open_all()
    model = SmartBert(package, sessions, Tokenizer.from_package(package), package.policies())
    loaded = resident_mb()
    texts = read_examples(file, Columns()).texts[:count]
    policy = model.policy().at_full_depth()
    times = []
    for text in texts:
        started = time.perf_counter()
        model.classify([text], policy=policy)
        times.append((time.perf_counter() - started) * 1000.0)
    return loaded, resident_mb(), peak_mb(), statistics.median(times)


if __name__ == "__main__":
    run_command(compare_settings)

"""python -m studies.performance.memory: what onnxruntime's memory settings save, and what they cost in time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import onnxruntime
import typer

from smartbert_bench.workers.memory import weigh
from smartbert_runtime import SmartBert, share_thread_pool
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.errors import InputError
from smartbert_runtime.sessions import sessions
from smartbert_runtime.sessions.threads import available_threads, session_options
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from studies.performance.conditions import conditions, save_line

# Name -> whether there is an arena, and session settings.
LEVERS: dict[str, tuple[bool, dict[str, str]]] = {
    "as shipped": (True, {}),
    "an arena for each session": (True, {"session.use_env_allocators": "0"}),
    "no arena": (False, {}),
    "no prepacking": (True, {"session.disable_prepacking": "1"}),
    "no arena, no prepacking": (False, {"session.disable_prepacking": "1"}),
}


def measure(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    file: Annotated[Path, typer.Option(help="Real texts.")],
    layout: Annotated[str | None, typer.Option(help="Layout; default: the package's first.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision; default: the package's first.")] = None,
    texts: Annotated[int, typer.Option(help="Take the first so many, one by one, at full depth.")] = 200,
    repeats: Annotated[int, typer.Option(help="Fresh processes for each setting, in turns.")] = 3,
    save: Annotated[Path | None, typer.Option(help="Add the figures to this file, one JSON object a line.")] = None,
    lever: Annotated[str | None, typer.Option(help="Only this one, as JSON.", hidden=True)] = None,
) -> None:
    """Print resident memory and milliseconds a text for each setting, in processes of their own."""
    if lever is not None:
        print(json.dumps(_one(package, file, layout, precision, texts, lever)))
        return
    found: dict[str, list[list[float]]] = {name: [] for name in LEVERS}
    for _ in range(repeats):
        for name, rows in found.items():
            arguments = [*sys.argv[1:], "--lever", name]
            command = [sys.executable, "-m", "studies.performance.memory", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))
    print("| setting | MB loaded | MB after the texts | MB at most | ms a text |\n|---|---|---|---|---|")
    medians: dict[str, dict[str, float]] = {}
    for name, rows in found.items():
        loaded, steady, peak, milliseconds = (statistics.median(column) for column in zip(*rows, strict=True))
        medians[name] = {"mb_loaded": loaded, "mb_after": steady, "mb_peak": peak, "ms_a_text": milliseconds}
        print(f"| {name} | {loaded:.0f} | {steady:.0f} | {peak:.0f} | {milliseconds:.2f} |")
    said = (
        f"{package.name}, {layout or 'first layout'}, {precision or 'first precision'}, {texts} texts one by one at "
        f"full depth, medians of {repeats} processes; {conditions(available_threads())}"
    )
    print(f"\n{said}")
    save_line(save, {"conditions": said, "memory": medians})


def _one(
    package: Path, file: Path, layout: str | None, precision: str | None, count: int, lever: str
) -> tuple[float, float, float, float]:
    arena, settings = LEVERS[lever]

    def options(threads: int, **_: object) -> onnxruntime.SessionOptions:
        made = session_options(threads, arena=arena)
        for name, value in settings.items():
            made.add_session_config_entry(name, value)
        return made

    share_thread_pool()
    vars(sessions)["session_options"] = options
    model = SmartBert.load(package, layout=layout, precision=precision, preload=True)
    loaded = _mb()
    texts = read_examples(file, Columns()).texts[:count]
    policy = model.policy().at_full_depth()
    times = []
    for text in texts:
        started = time.perf_counter()
        model.classify([text], policy=policy)
        times.append((time.perf_counter() - started) * 1000.0)
    return loaded, _mb(), weigh().peak_mb or 0.0, statistics.median(times)


def _mb() -> float:
    resident = weigh().resident_mb
    if resident is None:
        raise InputError("memory is read from /proc, as Linux has it", hint="run this on Linux")
    return resident


if __name__ == "__main__":
    run_command(measure)

"""One run of smartbert-bench: starts, then one text at a time, then batches, with all contenders in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from smartbert_bench.conditions import collect_conditions, load_average
from smartbert_bench.contenders.contender import Contender
from smartbert_bench.figures import Measurements, compute_figures, compute_ratios
from smartbert_bench.passes import time_batches, time_one_by_one
from smartbert_bench.report import BenchReport
from smartbert_bench.settings import BenchSettings
from smartbert_bench.starts import StartTimes, time_starts
from smartbert_bench.texts import check_labels
from smartbert_bench.turns import Turns, check_turns
from smartbert_bench.workers.process import Worker, WorkerSpec
from smartbert_bench.workers.protocol import LoadReply, MemoryReply
from smartbert_runtime.package.open import Package
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.tokenizer import Tokenizer


def run_bench(
    package: Package,
    contenders: Sequence[Contender],
    examples: Examples,
    settings: BenchSettings,
    *,
    reporter: Reporter = SILENT,
) -> BenchReport:
    """Measure every contender on the same texts with the same threads.

    Raises InputError for a label that the package does not know, ConfigError where several processes cannot take
    turns, BenchError for a contender that dies or fails.
    """
    check_labels(package.manifest, examples)
    specs = {contender.worker.name: contender.worker for contender in contenders}
    check_turns(len(specs))
    load_before = load_average()
    starts = time_starts(contenders, examples, starts=settings.starts, threads=settings.threads, reporter=reporter)
    with ExitStack() as stack:
        turns = Turns()
        loaded = {name: _load(spec, settings, turns, stack, reporter) for name, spec in specs.items()}
        measured = _measure_loaded(contenders, loaded, turns, examples, settings, starts, reporter)
    versions = {library: version for one in loaded.values() for library, version in one.reply.versions.items()}
    conditions = collect_conditions(
        settings,
        examples,
        Tokenizer.from_package(package),
        load_average=(load_before, load_average()),
        versions=versions,
    )
    return BenchReport(
        conditions=conditions,
        contenders=tuple(compute_figures(contender, measured[contender.name], examples) for contender in contenders),
        ratios=tuple(compute_ratios(contenders, measured)),
    )


@dataclass(frozen=True, kw_only=True)
class _LoadedWorker:
    """A process with everything loaded, and its memory at that point."""

    worker: Worker
    reply: LoadReply
    memory: MemoryReply


def _load(
    spec: WorkerSpec, settings: BenchSettings, turns: Turns, stack: ExitStack, reporter: Reporter
) -> _LoadedWorker:
    reporter.step(f"loading {spec.name}")
    turns.end()
    worker = turns.begin(stack.enter_context(Worker(spec, threads=settings.threads)))
    return _LoadedWorker(worker=worker, reply=worker.load(preload=True), memory=worker.memory())


def _measure_loaded(
    contenders: Sequence[Contender],
    loaded: Mapping[str, _LoadedWorker],
    turns: Turns,
    examples: Examples,
    settings: BenchSettings,
    starts: Mapping[str, StartTimes],
    reporter: Reporter,
) -> dict[str, Measurements]:
    """Contender's name -> what was measured of it."""
    workers = {name: one.worker for name, one in loaded.items()}
    repeats = settings.repeats
    one_by_one = time_one_by_one(contenders, workers, turns, examples, repeats=repeats, reporter=reporter)
    steady_memory = {name: turns.give(worker).memory() for name, worker in workers.items()}
    batch_speeds = {
        size: time_batches(contenders, workers, turns, examples, batch_size=size, repeats=repeats, reporter=reporter)
        for size in settings.batch_sizes
    }
    final_memory = {name: turns.give(worker).memory() for name, worker in workers.items()}
    return {
        contender.name: Measurements(
            one_by_one=one_by_one[contender.name],
            batch_speeds={size: speeds[contender.name] for size, speeds in batch_speeds.items()},
            starts=starts.get(contender.name) or StartTimes(load_seconds=(loaded[worker].reply.load_seconds,)),
            loaded_memory=loaded[worker].memory,
            steady_memory=steady_memory[worker],
            final_memory=final_memory[worker],
        )
        for contender in contenders
        for worker in (contender.worker.name,)
    }

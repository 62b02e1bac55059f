"""One run of smartbert-bench: starts, then passes one by one, then batches, all contenders in turns throughout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from smartbert_bench.conditions import BenchSettings, conditions, load_average
from smartbert_bench.contenders.contender import Contender
from smartbert_bench.figures import BenchReport, Measured, figures, ratios
from smartbert_bench.passes import measure_batches, measure_singles
from smartbert_bench.starts import Starts, measure_starts
from smartbert_bench.texts import check_labels
from smartbert_bench.turns import Turns, check_turns
from smartbert_bench.workers.process import Worker, WorkerSpec
from smartbert_bench.workers.protocol import Opened, Weight
from smartbert_runtime.package.open import Package
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.tokenizer import Tokenizer

Say = Callable[[str], None]


def measure(
    package: Package,
    contenders: Sequence[Contender],
    examples: Examples,
    settings: BenchSettings,
    *,
    say: Say = lambda step: None,
) -> BenchReport:
    """Measure every contender on the same texts with the same threads.

    Raises InputError for a label that the package does not know, ConfigError where several processes cannot take
    turns, BenchError for a contender that dies or cannot answer.
    """
    check_labels(package.manifest, examples)
    specs = {contender.worker.name: contender.worker for contender in contenders}
    check_turns(len(specs))
    before = load_average()
    starts = measure_starts(contenders, examples, starts=settings.starts, threads=settings.threads, say=say)
    with ExitStack() as stack:
        turns = Turns()
        loaded = {name: _load(spec, settings, turns, stack, say) for name, spec in specs.items()}
        measured = _measure_loaded(contenders, loaded, turns, examples, settings, starts, say)
    versions = {library: version for one in loaded.values() for library, version in one.opened.versions.items()}
    found = conditions(
        settings,
        examples,
        Tokenizer.from_package(package),
        load_average=(before, load_average()),
        versions=versions,
    )
    return BenchReport(
        conditions=found,
        contenders=tuple(figures(contender, measured[contender.name], examples) for contender in contenders),
        ratios=tuple(ratios(contenders, measured)),
    )


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """A process that is ready to answer, and what it weighed then."""

    worker: Worker
    opened: Opened
    weight: Weight


def _load(spec: WorkerSpec, settings: BenchSettings, turns: Turns, stack: ExitStack, say: Say) -> _Loaded:
    say(f"loading {spec.name}")
    turns.end()
    worker = turns.begin(stack.enter_context(Worker(spec, threads=settings.threads)))
    return _Loaded(worker=worker, opened=worker.open(preload=True), weight=worker.weigh())


def _measure_loaded(
    contenders: Sequence[Contender],
    loaded: Mapping[str, _Loaded],
    turns: Turns,
    examples: Examples,
    settings: BenchSettings,
    starts: Mapping[str, Starts],
    say: Say,
) -> dict[str, Measured]:
    """By the contenders' names."""
    workers = {name: one.worker for name, one in loaded.items()}
    repeats = settings.repeats
    singles = measure_singles(contenders, workers, turns, examples, repeats=repeats, say=say)
    steady = {name: turns.give(worker).weigh() for name, worker in workers.items()}
    speeds = {
        size: measure_batches(contenders, workers, turns, examples, batch_size=size, repeats=repeats, say=say)
        for size in settings.batch_sizes
    }
    last = {name: turns.give(worker).weigh() for name, worker in workers.items()}
    return {
        contender.name: Measured(
            singles=singles[contender.name],
            speeds={size: found[contender.name] for size, found in speeds.items()},
            starts=starts.get(contender.name) or Starts(load_seconds=(loaded[worker].opened.load_seconds,)),
            loaded=loaded[worker].weight,
            steady=steady[worker],
            last=last[worker],
        )
        for contender in contenders
        for worker in (contender.worker.name,)
    }

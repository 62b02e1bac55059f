"""python -m studies.performance.speed: what deciding costs and what exiting saves, against one plain graph.

The plain graph holds the package's own weights: all layers, the last head. Both sides run in this process on one pool
of threads and take turns. Shape letters: t texts.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import typer

from smartbert.configuration import SmartBertConfig
from smartbert.evaluation.macs import MacCounter
from smartbert_bench.contenders.full_depth_graph import monolith
from smartbert_bench.figures import Spread, spread
from smartbert_export.source_checkpoint import CONFIG_FILE
from smartbert_runtime import Prediction, SmartBert, share_thread_pool
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.run import run_layout
from smartbert_runtime.engine.text import run_alone
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import FUSED
from smartbert_runtime.sessions.threads import session_options
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokens, batches_by_length
from studies.performance.conditions import conditions, save_line

# Asks every gate and every head, and lets none of them have its way.
NEVER = Policy(skip_threshold=1.0, exit_threshold=0.0)
LONG = 32


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How much faster than the plain graph, by the clock and by multiply-accumulates."""

    texts: int
    mean_tokens: float
    batch_size: int
    clock: Spread
    macs: float

    @property
    def kept(self) -> float:
        """Share of the saved computation that is saved time."""
        return self.clock.value / self.macs


def measure(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package with the layout fused.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint it was made of, for counting MAC.")],
    file: Annotated[Path, typer.Option(help="Real texts.")],
    tokens: Annotated[str, typer.Option(help="Lengths to measure the cost of deciding at.")] = "16,32,128",
    threads: Annotated[int | None, typer.Option(help="Cores; default: all this process may use.")] = None,
    repeats: Annotated[int, typer.Option(help="Passes.")] = 5,
    saving: Annotated[bool, typer.Option(help="Also what the package's own policy saves on the texts.")] = True,
    save: Annotated[Path | None, typer.Option(help="Add the figures to this file, one JSON object a line.")] = None,
) -> None:
    """Print what deciding costs at full depth, and what the policy saves by the clock and by MAC."""
    share_thread_pool(threads)
    model = SmartBert.load(package, layout=FUSED, precision="fp32", threads=threads, preload=True)
    plain = _Plain(model)
    texts = read_examples(file, Columns()).texts
    overhead: dict[str, dict[str, object]] = {}
    print("| tokens | plain ms | fused ms | fused over plain | without lanes |\n|---|---|---|---|---|")
    for length in map(int, tokens.split(",")):
        row = _overhead(model, plain, _of_length(model, texts, length), repeats)
        overhead[str(length)] = row
        ratios = " | ".join(_shown(row[name]) for name in ("ratio", "ratio_without_lanes"))  # type: ignore[arg-type]
        print(f"| {length} | {row['plain_ms']:.2f} | {row['fused_ms']:.2f} | {ratios} |")
    said = _conditions(model)
    found: dict[str, object] = {"package": package.name, "conditions": said, "overhead": overhead}
    if saving:
        config = SmartBertConfig.from_dict(json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8")))
        config.gates = model.package.manifest.model.gates
        savings = _savings(model, plain, texts, MacCounter(config=config), repeats)
        found["savings"] = [asdict(row) | {"kept": row.kept} for row in savings]
        print("\n| texts | tokens | batch | faster | fewer MAC | kept |\n|---|---|---|---|---|---|")
        for found_row in savings:
            print(
                f"| {found_row.texts} | {found_row.mean_tokens:.1f} | {found_row.batch_size} "
                f"| {_shown(found_row.clock)} | {found_row.macs:.2f}x | {found_row.kept:.2f} |"
            )
    print(f"\n{said}")
    save_line(save, found)


class _Plain:
    """The plain graph, asked as the package is."""

    def __init__(self, model: SmartBert) -> None:
        graph = monolith(model.package, model.sessions.variant).SerializeToString()
        options = session_options(model.sessions.threads)
        self._tokenizer = model.tokenizer
        self._session = onnxruntime.InferenceSession(graph, options, providers=list(model.sessions.providers))

    def run(self, tokens: Tokens) -> None:
        self._session.run(None, tokens.feeds())

    def classify(self, texts: Sequence[str], batch_size: int) -> None:
        tokenized = self._tokenizer.tokenize(texts)
        for rows in batches_by_length([len(text.ids_s) for text in tokenized], batch_size):
            self.run(self._tokenizer.pad([tokenized[row] for row in rows]))


def _of_length(model: SmartBert, texts: Sequence[str], length: int) -> list[Tokens]:
    """Ten rows of exactly so many tokens, of real texts one after another."""
    ids = [int(number) for text in texts for number in model.tokenizer.encode([text]).input_ids_bs[0]]
    if len(ids) < 10 * length:
        raise InputError(f"{len(ids)} tokens are too few for ten rows of {length}", hint="give more texts")
    rows = [np.array([ids[start : start + length]]) for start in range(0, 10 * length, length)]
    ones = np.ones((1, length), dtype=np.int64)
    return [
        Tokens(input_ids_bs=row, attention_mask_bs=ones, token_type_ids_bs=np.zeros_like(ones), truncated=(False,))
        for row in rows
    ]


def _overhead(model: SmartBert, plain: _Plain, rows: Sequence[Tokens], repeats: int) -> dict[str, object]:
    facts = model.package.manifest.model
    policy = replace(NEVER, no_skip=not facts.gates)
    # onnxruntime's own `run` for every part, as on other providers than the CPU.
    unbound = functools.partial(run_alone, policy=policy, layers=facts.layers, fused=True)
    # After the other side's turn a side's weights are gone from the caches: it settles in some eight runs.
    turn = list(rows) * 3
    ways = {
        "plain": lambda: [_timed(plain.run, row) for row in turn][len(rows) :],
        "fused": lambda: [_timed(run_layout, model.sessions, row, policy) for row in turn][len(rows) :],
        "without lanes": lambda: [_timed(unbound, model.sessions, row) for row in turn][len(rows) :],
    }
    times = _in_turns(ways, 4 * repeats)
    medians = {name: [statistics.median(times_t) for times_t in passes] for name, passes in times.items()}
    return {
        "plain_ms": statistics.median(medians["plain"]) * 1000.0,
        "fused_ms": statistics.median(medians["fused"]) * 1000.0,
        "ratio": spread(np.array(medians["fused"]) / np.array(medians["plain"])),
        "ratio_without_lanes": spread(np.array(medians["without lanes"]) / np.array(medians["plain"])),
    }


def _savings(model: SmartBert, plain: _Plain, texts: Sequence[str], counter: MacCounter, repeats: int) -> list[Saving]:
    answers = model.classify(texts)
    tokens_t = np.array([len(model.tokenizer.encode([text]).input_ids_bs[0]) for text in texts])
    ours_t = _macs(answers, tokens_t, counter)
    layers = model.package.manifest.model.layers
    plain_t = layers * counter.layer(tokens_t) + counter.exit(tokens_t)
    found = []
    for chosen_t, batch_size in ((tokens_t > 0, 1), (tokens_t >= LONG, 1), (tokens_t > 0, 32)):
        picked = [text for text, chosen in zip(texts, chosen_t, strict=True) if chosen]
        if len(picked) < 10:
            continue
        times = _in_turns(_ways(model, plain, picked, batch_size), repeats)
        sums = {name: [sum(times_t) for times_t in passes] for name, passes in times.items()}
        found.append(
            Saving(
                texts=len(picked),
                mean_tokens=float(tokens_t[chosen_t].mean()),
                batch_size=batch_size,
                clock=spread(np.array(sums["plain"]) / np.array(sums["ours"])),
                macs=float(plain_t[chosen_t].sum() / ours_t[chosen_t].sum()),
            )
        )
    return found


def _ways(
    model: SmartBert, plain: _Plain, texts: Sequence[str], batch_size: int
) -> Mapping[str, Callable[[], list[float]]]:
    chunks = [[text] for text in texts] if batch_size == 1 else [list(texts)]
    ask = functools.partial(model.classify, batch_size=batch_size)
    return {
        "plain": lambda: [_timed(plain.classify, chunk, batch_size) for chunk in chunks],
        "ours": lambda: [_timed(ask, chunk) for chunk in chunks],
    }


def _macs(answers: Sequence[Prediction], tokens_t: np.ndarray, counter: MacCounter) -> np.ndarray:
    """What each text's way costs, as smartbert-evaluate counts it."""
    run_t = np.array([len(answer.layers_run) for answer in answers])
    last_skipped_t = np.array([answer.exit_layer in answer.layers_skipped for answer in answers])
    reached_t = np.array([answer.exit_layer for answer in answers])
    macs_t: np.ndarray = (
        run_t * counter.layer(tokens_t)
        + reached_t * counter.gate(tokens_t)
        + (run_t + last_skipped_t) * counter.exit(tokens_t)
    )
    return macs_t


def _in_turns(ways: Mapping[str, Callable[[], list[float]]], repeats: int) -> dict[str, list[list[float]]]:
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for number in range(repeats):
        for name in sorted(ways, reverse=bool(number % 2)):
            times[name].append(ways[name]())
    return times


def _timed(call: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def _shown(ratio: Spread) -> str:
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _conditions(model: SmartBert) -> str:
    facts = model.package.manifest.model
    return f"{facts.layers} layers, hidden {facts.hidden_size}, fp32, {conditions(model.sessions.threads)}"


if __name__ == "__main__":
    run_command(measure)

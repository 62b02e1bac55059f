"""python -m studies.performance.speed: what gates and exit heads cost, and what they save, against one plain graph.

The plain graph has the package's own weights: every layer, the last exit head. Both sides run in this process on one
thread pool and take turns. Shape letters: t texts.
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
from smartbert_bench.contenders.plain_graph import plain_graph
from smartbert_bench.figures import spread
from smartbert_bench.report import Spread
from smartbert_export.source_checkpoint import CONFIG_FILE
from smartbert_runtime import Prediction, SmartBert, share_thread_pool
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.run import run_layout
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import FUSED
from smartbert_runtime.sessions.threads import session_options
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokens, batches_by_length
from studies.performance.append_record import append_record, conditions_line

# Evaluates every gate and every exit head; none of them ever skips or exits.
NEVER = Policy(skip_threshold=1.0, exit_threshold=0.0)
# Tokens from which on a text counts as long.
LONG = 32


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How many times cheaper than the plain graph, in time and in multiply-accumulates."""

    texts: int
    mean_tokens: float
    batch_size: int
    clock: Spread
    macs: float

    @property
    def kept(self) -> float:
        """Share of the saved computation that is saved time."""
        return self.clock.value / self.macs


def measure_speed(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package with the layout fused.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint that it was exported from, for counting MAC.")],
    file: Annotated[Path, typer.Option(help="Real texts.")],
    tokens: Annotated[
        str, typer.Option(help="Lengths at which the cost of gates and heads is measured.")
    ] = "16,32,128",
    threads: Annotated[int | None, typer.Option(help="Cores; default: all this process may use.")] = None,
    repeats: Annotated[int, typer.Option(help="Passes.")] = 5,
    saving: Annotated[bool, typer.Option(help="Also measure what the package's own policy saves.")] = True,
    save: Annotated[Path | None, typer.Option(help="Append the figures to this file, one JSON object a line.")] = None,
) -> None:
    """Print what gates and heads cost at full depth, and what the policy saves in time and in MAC."""
    share_thread_pool(threads)
    model = SmartBert.load(package, layout=FUSED, precision="fp32", threads=threads, preload=True)
    plain = _PlainModel(model)
    texts = read_examples(file, Columns()).texts
    overhead: dict[str, dict[str, object]] = {}
    print("| tokens | plain ms | fused ms | fused over plain |\n|---|---|---|---|")
    for length in map(int, tokens.split(",")):
        row = _overhead(model, plain, _of_length(model, texts, length), repeats)
        overhead[str(length)] = row
        ratio = _shown(row["ratio"])  # type: ignore[arg-type]
        print(f"| {length} | {row['plain_ms']:.2f} | {row['fused_ms']:.2f} | {ratio} |")
    conditions = _conditions(model)
    record: dict[str, object] = {"package": package.name, "conditions": conditions, "overhead": overhead}
    if saving:
        config = SmartBertConfig.from_dict(json.loads((checkpoint / CONFIG_FILE).read_text(encoding="utf-8")))
        config.gates = model.package.manifest.model.gates
        savings = _savings(model, plain, texts, MacCounter(config=config), repeats)
        record["savings"] = [asdict(one) | {"kept": one.kept} for one in savings]
        print("\n| texts | tokens | batch | faster | fewer MAC | kept |\n|---|---|---|---|---|---|")
        for one in savings:
            print(
                f"| {one.texts} | {one.mean_tokens:.1f} | {one.batch_size} "
                f"| {_shown(one.clock)} | {one.macs:.2f}x | {one.kept:.2f} |"
            )
    print(f"\n{conditions}")
    append_record(save, record)


class _PlainModel:
    """The plain graph with the interface of the package."""

    def __init__(self, model: SmartBert) -> None:
        graph = plain_graph(model.package, model.sessions.variant).SerializeToString()
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
    """Ten rows of exactly `length` tokens, cut from the texts one after another."""
    ids = [int(number) for text in texts for number in model.tokenizer.encode([text]).input_ids_bs[0]]
    if len(ids) < 10 * length:
        raise InputError(f"{len(ids)} tokens are too few for ten rows of {length}", hint="give more texts")
    rows = [np.array([ids[start : start + length]]) for start in range(0, 10 * length, length)]
    ones = np.ones((1, length), dtype=np.int64)
    return [
        Tokens(input_ids_bs=row, attention_mask_bs=ones, token_type_ids_bs=np.zeros_like(ones), truncated=(False,))
        for row in rows
    ]


def _overhead(model: SmartBert, plain: _PlainModel, rows: Sequence[Tokens], repeats: int) -> dict[str, object]:
    facts = model.package.manifest.model
    policy = replace(NEVER, no_skip=not facts.gates)
    # After the other side's turn a side's weights are no longer in the caches: it settles within eight runs or so.
    turn = list(rows) * 3
    sides = {
        "plain": lambda: [_timed(plain.run, row) for row in turn][len(rows) :],
        "fused": lambda: [_timed(run_layout, model.sessions, row, policy) for row in turn][len(rows) :],
    }
    times = _in_turns(sides, 4 * repeats)
    medians = {name: [statistics.median(times_t) for times_t in passes] for name, passes in times.items()}
    return {
        "plain_ms": statistics.median(medians["plain"]) * 1000.0,
        "fused_ms": statistics.median(medians["fused"]) * 1000.0,
        "ratio": spread(np.array(medians["fused"]) / np.array(medians["plain"])),
    }


def _savings(
    model: SmartBert, plain: _PlainModel, texts: Sequence[str], counter: MacCounter, repeats: int
) -> list[Saving]:
    predictions = model.classify(texts)
    tokens_t = np.array([len(model.tokenizer.encode([text]).input_ids_bs[0]) for text in texts])
    ours_t = _macs(predictions, tokens_t, counter)
    layers = model.package.manifest.model.layers
    plain_t = layers * counter.layer(tokens_t) + counter.exit(tokens_t)
    savings = []
    for chosen_t, batch_size in ((tokens_t > 0, 1), (tokens_t >= LONG, 1), (tokens_t > 0, 32)):
        picked = [text for text, chosen in zip(texts, chosen_t, strict=True) if chosen]
        if len(picked) < 10:
            continue
        times = _in_turns(_sides(model, plain, picked, batch_size), repeats)
        sums = {name: [sum(times_t) for times_t in passes] for name, passes in times.items()}
        savings.append(
            Saving(
                texts=len(picked),
                mean_tokens=float(tokens_t[chosen_t].mean()),
                batch_size=batch_size,
                clock=spread(np.array(sums["plain"]) / np.array(sums["ours"])),
                macs=float(plain_t[chosen_t].sum() / ours_t[chosen_t].sum()),
            )
        )
    return savings


def _sides(
    model: SmartBert, plain: _PlainModel, texts: Sequence[str], batch_size: int
) -> Mapping[str, Callable[[], list[float]]]:
    chunks = [[text] for text in texts] if batch_size == 1 else [list(texts)]
    classify = functools.partial(model.classify, batch_size=batch_size)
    return {
        "plain": lambda: [_timed(plain.classify, chunk, batch_size) for chunk in chunks],
        "ours": lambda: [_timed(classify, chunk) for chunk in chunks],
    }


def _macs(predictions: Sequence[Prediction], tokens_t: np.ndarray, counter: MacCounter) -> np.ndarray:
    """Multiply-accumulates of each text (t), as smartbert-evaluate counts them."""
    run_t = np.array([len(prediction.layers_run) for prediction in predictions])
    last_skipped_t = np.array([prediction.exit_layer in prediction.layers_skipped for prediction in predictions])
    reached_t = np.array([prediction.exit_layer for prediction in predictions])
    macs_t: np.ndarray = (
        run_t * counter.layer(tokens_t)
        + reached_t * counter.gate(tokens_t)
        + (run_t + last_skipped_t) * counter.exit(tokens_t)
    )
    return macs_t


def _in_turns(sides: Mapping[str, Callable[[], list[float]]], repeats: int) -> dict[str, list[list[float]]]:
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for run_pass in sides.values():
        run_pass()  # warm-up
    for number in range(repeats):
        for name in sorted(sides, reverse=bool(number % 2)):
            times[name].append(sides[name]())
    return times


def _timed(call: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def _shown(ratio: Spread) -> str:
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _conditions(model: SmartBert) -> str:
    facts = model.package.manifest.model
    return f"{facts.layers} layers, hidden {facts.hidden_size}, fp32, {conditions_line(model.sessions.threads)}"


if __name__ == "__main__":
    run_command(measure_speed)

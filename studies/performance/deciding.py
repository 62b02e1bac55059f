"""python -m studies.performance.deciding: what an exit head and a gate cost in a block, against its layer alone.

Both are parts of one package that has the layouts `separate` and `fused`; they read the same real hidden states, in
turns, on one thread pool.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from smartbert_bench.figures import spread
from smartbert_bench.report import Spread
from smartbert_runtime import SmartBert, share_thread_pool
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import FUSED, SEPARATE
from smartbert_runtime.package.part_names import BLOCK, EMBEDDINGS, LAYER, part_name
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokens
from studies.performance.append_record import append_record, conditions_line

RUNS = 40


def measure_deciding(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package with the layouts separate and fused.")],
    file: Annotated[Path, typer.Option(help="Real texts.")],
    precision: Annotated[str, typer.Option(help="Precision of both.")] = "int8",
    tokens: Annotated[str, typer.Option(help="Lengths, comma-separated.")] = "16,32,128",
    threads: Annotated[int | None, typer.Option(help="Cores; default: all this process may use.")] = None,
    repeats: Annotated[int, typer.Option(help=f"Passes of {RUNS} runs of each part.")] = 7,
    save: Annotated[Path | None, typer.Option(help="Append the figures to this file, one JSON object a line.")] = None,
) -> None:
    """Print the time of a block over that of its layer alone, in the middle of the model, one text a call."""
    share_thread_pool(threads)
    separate, fused = (
        SmartBert.load(package, layout=layout, precision=precision, threads=threads) for layout in (SEPARATE, FUSED)
    )
    texts = read_examples(file, Columns()).texts
    layer = separate.package.manifest.model.layers // 2
    record: dict[str, object] = {"package": package.name, "precision": precision, "layer": layer}
    print("| tokens | layer, us | block, us | block over layer |\n|---|---|---|---|")
    for length in map(int, tokens.split(",")):
        feeds = _states(separate, texts, length, layer)
        sides = {
            "layer": (separate, part_name(LAYER, layer)),
            "block": (fused, part_name(BLOCK, layer)),
        }
        passes: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats + 1):
            for name, (model, part) in sides.items():
                passes[name].append(_median_us(model, part, feeds))
        layer_us, block_us = (np.array(passes[name][1:]) for name in ("layer", "block"))  # the first warms up
        ratio = spread(block_us / layer_us)
        record[str(length)] = {
            "layer_us": float(np.median(layer_us)),
            "block_us": float(np.median(block_us)),
            "ratio": ratio.value,
        }
        print(f"| {length} | {np.median(layer_us):.0f} | {np.median(block_us):.0f} | {_shown(ratio)} |")
    conditions = conditions_line(separate.sessions.threads)
    print(f"\n{package.name}, layer {layer}, {precision}; {conditions}")
    append_record(save, record | {"conditions": conditions})


def _states(model: SmartBert, texts: tuple[str, ...], length: int, layer: int) -> dict[str, np.ndarray]:
    """What `layer` reads of one row of exactly `length` tokens, cut from the texts one after another."""
    ids = [int(number) for text in texts for number in model.tokenizer.encode([text]).input_ids_bs[0]]
    if len(ids) < length:
        raise InputError(f"{len(ids)} tokens are too few for a row of {length}", hint="give more texts")
    ones_bs = np.ones((1, length), dtype=np.int64)
    tokens = Tokens(
        input_ids_bs=np.array([ids[:length]]),
        attention_mask_bs=ones_bs,
        token_type_ids_bs=np.zeros_like(ones_bs),
        truncated=(False,),
    )
    hidden_bsh, mask_b11s = model.sessions.run(EMBEDDINGS, tokens.feeds())
    for number in range(1, layer):
        (hidden_bsh,) = model.sessions.run(part_name(LAYER, number), {"hidden": hidden_bsh, "mask": mask_b11s})
    return {"hidden": hidden_bsh, "mask": mask_b11s}


def _median_us(model: SmartBert, part: str, feeds: dict[str, np.ndarray]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        model.sessions.run(part, feeds)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _shown(ratio: Spread) -> str:
    return f"{ratio.value:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


if __name__ == "__main__":
    run_command(measure_deciding)

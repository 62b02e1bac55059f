"""Parity's second oracle: the inference rule written from the paper, sharing no code with the project.

Shape letters: b batch (here 1), s sequence, h hidden, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.tokenizer import Tokens


@dataclass(frozen=True, kw_only=True)
class PaperAnswer:
    """Layers from 1; `margin` is how far the closest decision was from its threshold."""

    layers_run: tuple[int, ...]
    layers_skipped: tuple[int, ...]
    exit_layer: int
    logits_c: NDArray[np.float32]
    margin: float


@torch.inference_mode()
def paper_answer(
    model: SmartBertForSequenceClassification,
    ids_s: Sequence[int],
    types_s: Sequence[int],
    *,
    exit_threshold: float = 0.5,
    skip_threshold: float = 0.5,
    no_skip: bool = False,
    no_exit: bool = False,
    max_layers: int | None = None,
) -> PaperAnswer:
    """One text, unpadded, layer by layer; `max_layers` ends it at the last layer it may run."""
    layers = len(model.gates)
    mask_b11s = torch.zeros(1, 1, 1, len(ids_s))
    x_bsh = model.backbone.embeddings(input_ids=torch.tensor([ids_s]), token_type_ids=torch.tensor([types_s]))
    run: list[int] = []
    skipped: list[int] = []
    margins = [math.inf]
    for layer in range(1, layers + 1):
        if not no_skip:
            skip_logit = float(model.gates[layer - 1](x_bsh, mask_b11s))
            margins.append(abs(skip_logit - math.log(skip_threshold / (1 - skip_threshold))))
            if 1 / (1 + math.exp(-skip_logit)) >= skip_threshold:
                skipped.append(layer)
                continue
        output = model.backbone.encoder.layer[layer - 1](x_bsh, mask_b11s)
        x_bsh = output[0] if isinstance(output, tuple) else output
        run.append(layer)
        logits_c = model.exits[layer - 1](x_bsh, mask_b11s)[0]
        if not no_exit and layer < layers:
            p_c = torch.softmax(logits_c.double(), dim=0)
            entropy = float(-(p_c * p_c.log()).sum()) / math.log(len(p_c))
            margins.append(abs(entropy - exit_threshold))
            if entropy < exit_threshold:
                return _answer(run, skipped, layer, logits_c, margins)
        if len(run) == max_layers:
            return _answer(run, skipped, layer, logits_c, margins)
    return _answer(run, skipped, layers, model.exits[-1](x_bsh, mask_b11s)[0], margins)


def _answer(
    run: list[int], skipped: list[int], layer: int, logits_c: torch.Tensor, margins: list[float]
) -> PaperAnswer:
    return PaperAnswer(
        layers_run=tuple(run),
        layers_skipped=tuple(skipped),
        exit_layer=layer,
        logits_c=logits_c.numpy(),
        margin=min(margins),
    )


def random_rows(lengths: Sequence[int], vocabulary: int, *, width: int | None = None, seed: int = 0) -> Tokens:
    """A batch of random ids, one row a length, padded to `width` with random ids too: padding must not matter."""
    rng = np.random.default_rng(seed)
    shape = len(lengths), width or max(lengths)
    return Tokens(
        input_ids_bs=rng.integers(0, vocabulary, shape),
        attention_mask_bs=(np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64),
        token_type_ids_bs=rng.integers(0, 2, shape),
        truncated=(False,) * len(lengths),
    )

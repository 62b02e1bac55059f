"""Record the ranges of activations: texts run through the model, and what its linear layers read is counted.

Shape letters: b batch, s sequence, l layers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smartbert.activations.ranges import ActivationRanges, HistogramBuilder, hidden_point, linear_point
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch_decisions import BatchDecisions
from smartbert_runtime.engine.decide_recorded import decide_recorded
from smartbert_runtime.tokenizer import Tokens, batches_by_length

ENOUGH_TEXTS = 512


@torch.inference_mode()
def record_ranges(
    model: SmartBertForSequenceClassification | PlainClassifier,
    tokens: Tokens,
    policy: Policy,
    *,
    batch_size: int = 16,
    tick: Callable[[int], None] = lambda texts: None,
) -> ActivationRanges:
    """Count what the linear layers read for these texts: at full depth and, where gates may skip layers, as `policy`
    skips them.

    Under the policy, a layer counts only the texts that run it. Raises ConfigError for values that are not finite.
    """
    model.eval()
    device = next(model.parameters()).device
    watch = _Watch(cast(Any, model.backbone).encoder.layer)
    for rows in batches_by_length(tokens.attention_mask_bs.sum(axis=1).tolist(), batch_size):
        batch = tokens.rows(rows)
        feeds = {name: torch.from_numpy(array).to(device) for name, array in batch.feeds().items()}
        with watch.counting(feeds["attention_mask"].bool()):
            _run_layers(model, feeds)
        decisions = _decisions(model, feeds, policy)
        if decisions is not None and decisions.skipped_bl.any():
            with watch.counting(feeds["attention_mask"].bool(), decisions):
                _run_layers(model, feeds, skip_threshold=policy.skip_threshold)
        tick(len(rows))
    return ActivationRanges(
        texts=len(tokens.truncated),
        tokens=int(tokens.attention_mask_bs.sum()),
        points={name: watch.builders[name].histogram() for name in sorted(watch.builders)},
    )


def _run_layers(
    model: SmartBertForSequenceClassification | PlainClassifier,
    feeds: Mapping[str, Tensor],
    skip_threshold: float | None = None,
) -> None:
    """Every layer, without exit heads; skipping only with a threshold."""
    if isinstance(model, PlainClassifier):
        model.logits(**feeds)
        return
    hidden_bsh, mask_b11s = model.embed(**feeds)
    for _ in model.layer_steps(hidden_bsh, mask_b11s, skip_threshold=skip_threshold, no_skip=skip_threshold is None):
        pass


def _decisions(
    model: SmartBertForSequenceClassification | PlainClassifier, feeds: Mapping[str, Tensor], policy: Policy
) -> BatchDecisions | None:
    """What the policy decides; None where it can skip no layer."""
    if isinstance(model, PlainClassifier) or policy.no_skip or not len(model.gates):
        return None
    names = ("input_ids", "attention_mask", "token_type_ids")
    run = model.full_pass(*(feeds[name] for name in names), skip_threshold=policy.skip_threshold)
    skip_logits_bl, logits_blc = (
        np.asarray(tensor.float().cpu().numpy()) for tensor in (run.skip_logits_bl, run.logits_blc)
    )
    return decide_recorded(skip_logits_bl, logits_blc, policy)


class _Watch:
    """Counts, inside `counting`, what the layers and the linear layers inside them read."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = layers
        self.builders: defaultdict[str, HistogramBuilder] = defaultdict(HistogramBuilder)

    @contextmanager
    def counting(self, tokens_bs: Tensor, decisions: BatchDecisions | None = None) -> Iterator[None]:
        """Count the tokens marked in `tokens_bs`, with decisions only of the rows that reach a layer, or run it."""
        hooks = []
        for layer, module in enumerate(self._layers, start=1):
            runs_bs = reaches_bs = tokens_bs
            if decisions is not None:
                runs_b, skips_b = decisions.run_bl[:, layer - 1], decisions.skipped_bl[:, layer - 1]
                runs_bs = tokens_bs & _column(runs_b, tokens_bs)
                reaches_bs = tokens_bs & _column(runs_b | skips_b, tokens_bs)
            hidden = self._counter(hidden_point(layer - 1), reaches_bs)
            hooks.append(module.register_forward_pre_hook(hidden.read, with_kwargs=True))
            for name, linear in module.named_modules():
                if isinstance(linear, nn.Linear):
                    counter = self._counter(linear_point(layer, name), runs_bs, unless=hidden)
                    hooks.append(linear.register_forward_pre_hook(counter.read, with_kwargs=True))
        # What the last head reads; of the rows that run the last layer.
        last = self._counter(hidden_point(len(self._layers)), runs_bs)
        hooks.append(self._layers[-1].register_forward_hook(last.returned))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _counter(self, point: str, tokens_bs: Tensor, unless: _Counter | None = None) -> _Counter:
        return _Counter(self.builders, point, tokens_bs, unless)


class _Counter:
    """The hooks of one point. unless: the point of the layer's own input; a linear layer that reads it has none."""

    def __init__(
        self, builders: defaultdict[str, HistogramBuilder], point: str, tokens_bs: Tensor, unless: _Counter | None
    ) -> None:
        self._builders, self._point, self._tokens_bs, self._unless = builders, point, tokens_bs, unless
        self.seen: Tensor | None = None

    def read(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook: the first argument."""
        self._count(args[0] if args else next(iter(kwargs.values())))

    def returned(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook: the result."""
        self._count(output[0] if isinstance(output, tuple) else output)

    def _count(self, tensor: Tensor) -> None:
        self.seen = tensor
        if self._unless is not None and self._unless.seen is tensor:
            return
        self._builders[self._point].add(np.asarray(tensor[self._tokens_bs].float().cpu().numpy()))


def _column(marked_b: NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(marked_b).to(like.device)[:, None]

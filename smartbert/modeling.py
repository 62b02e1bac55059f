"""The SmartBERT model: encoder, gates, exit heads, and PyTorch's one loop over its layers (layer_steps).

Hu et al., IJCAI 2023. Shape letters: b batch, s sequence, h hidden, w head width, a attention heads, c classes,
l layers. Masks are additive, shape b,1,1,s: 0 for a token, MASKED for padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from smartbert.backbones import check_length, load_backbone_weights, read_backbone_config
from smartbert.configuration import LEARNED, MEAN, SmartBertConfig
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import logit
from smartbert_runtime.engine.decide_recorded import decide_recorded
from smartbert_runtime.errors import ConfigError

# Large enough that softmax gives exactly 0 in float32, small enough for float16.
MASKED = -10000.0


class PoolingAttention(nn.Module):
    """Multi-head self-attention with one query, because only one output is wanted.

    The query comes from token 0 (paper) or from the mean of all tokens but padding.
    """

    def __init__(self, width: int, heads: int, query: str) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"a head width of {width} cannot be split into {heads} attention heads")
        self.heads = heads
        self.query_is_mean = query == MEAN
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, t_bsw: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,w), (b,1,1,s) -> (b,w): the query's attention over all tokens."""
        size = t_bsw.shape[-1] // self.heads
        # Softmax over the mask alone: 1/n for each of n tokens, exactly 0 for padding. And a squeeze and a slice, not
        # indices: accelerators take those where they refuse a scalar Gather.
        source_b1w = mask_b11s.squeeze(1).softmax(dim=-1) @ t_bsw if self.query_is_mean else t_bsw[:, 0:1]
        query_ba1z = self._split(self.query(source_b1w), size)
        key_basz, value_basz = self._split(self.key(t_bsw), size), self._split(self.value(t_bsw), size)
        scores_ba1s = query_ba1z @ key_basz.transpose(-1, -2) / math.sqrt(size) + mask_b11s
        mixed_ba1z = scores_ba1s.softmax(dim=-1) @ value_basz
        return mixed_ba1z.reshape(-1, self.heads * size)

    def _split(self, x_bsw: Tensor, size: int) -> Tensor:
        return x_bsw.reshape(x_bsw.shape[0], x_bsw.shape[1], self.heads, size).transpose(1, 2)


class LearnedQueryPooling(nn.Module):
    """Attention pooling with a learned query vector for each head: no query, key or value product.

    Fewer operators than PoolingAttention, and no query that depends on the text.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, heads, bias=False)

    def forward(self, t_bsw: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,w), (b,1,1,s) -> (b,a*w): for each head, the tokens' mean weighted by softmax(t . query)."""
        scores_bas = self.queries(t_bsw).transpose(1, 2) + mask_b11s.squeeze(1)
        return cast(Tensor, (scores_bas.softmax(dim=-1) @ t_bsw).flatten(1))


def pooling(config: SmartBertConfig, heads: int) -> tuple[PoolingAttention | LearnedQueryPooling, int]:
    """The attention of a gate or an exit head, and the width of what it returns."""
    if config.head_query == LEARNED:
        return LearnedQueryPooling(config.head_width, heads), heads * config.head_width
    return PoolingAttention(config.head_width, heads, config.head_query), config.head_width


class SkipGate(nn.Module):
    """Decides from a layer's input whether the layer can be left out: sigmoid(output) = probability of skipping."""

    def __init__(self, config: SmartBertConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.hidden_size, config.head_width)
        self.attention, pooled_width = pooling(config, config.gate_heads)
        self.decide = nn.Linear(pooled_width, 1)
        nn.init.constant_(self.decide.bias, config.gate_bias)

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,h), (b,1,1,s) -> skip logit (b)."""
        t_bsw = torch.tanh(self.project(hidden_bsh))
        return cast(Tensor, self.decide(self.attention(t_bsw, mask_b11s))).reshape(-1)


class ExitHead(nn.Module):
    """Classifies from a layer's output."""

    def __init__(self, config: SmartBertConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.hidden_size, config.head_width)
        self.attention, pooled_width = pooling(config, config.exit_heads)
        self.dense = nn.Linear(pooled_width, config.head_width)
        self.classify = nn.Linear(config.head_width, config.num_labels)

    def features(self, hidden_bsh: Tensor) -> Tensor:
        """t = tanh(W x), (b,s,h) -> (b,s,w); stage 2's contrastive loss reads it too."""
        return torch.tanh(self.project(hidden_bsh))

    def answer(self, t_bsw: Tensor, mask_b11s: Tensor) -> Tensor:
        """The logits (b,c) from `features`."""
        return cast(Tensor, self.classify(torch.tanh(self.dense(self.attention(t_bsw, mask_b11s)))))

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,h), (b,1,1,s) -> logits (b,c)."""
        return self.answer(self.features(hidden_bsh), mask_b11s)


class ContrastHead(nn.Module):
    """Projects tokens for a contrastive loss; exists during training only and is never saved or exported."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, width))

    def forward(self, x_bsz: Tensor) -> Tensor:
        """(b,s,size) -> unit vectors (b,s,width)."""
        return nn.functional.normalize(self.layers(x_bsz), dim=-1)


@dataclass(frozen=True)
class LayerStep:
    """One layer of the hard-gated pass.

    index: from 0. skip_logit_b: its gate's output. input_bsh: what gate and layer read. output_bsh: the layer's own
    output, computed for every row. hidden_bsh: what comes next: the input where the row skips, else the output.
    """

    index: int
    skip_logit_b: Tensor
    skips_b: Tensor
    input_bsh: Tensor
    output_bsh: Tensor
    hidden_bsh: Tensor


@dataclass(frozen=True)
class FullPass:
    """Skip logits (b,l) and exit logits (b,l,c); the last head reads x_L, the others their own layer's output."""

    skip_logits_bl: Tensor
    logits_blc: Tensor


class SmartBertForSequenceClassification(PreTrainedModel):
    """Backbone, one gate and one exit head a layer. `gates[0]` decides about layer 1, `exits[0]` answers after it.

    `gates` is empty in a model that never skips (`config.gates` false).
    """

    config_class = SmartBertConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    config: SmartBertConfig

    def __init__(self, config: SmartBertConfig) -> None:
        super().__init__(config)
        if config.num_labels < 2:
            raise ConfigError(f"a classifier needs at least two classes, not {config.num_labels}")
        self.backbone: Any = config.family().build(config.backbone())
        self.gates = nn.ModuleList(SkipGate(config) for _ in range(config.layers if config.gates else 0))
        self.exits = nn.ModuleList(ExitHead(config) for _ in range(config.layers))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: gates and heads begin as their constructors make them, the backbone initializes itself."""

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """As every model's, but safetensors only: a pickled checkpoint can run code when it is read."""
        return super().from_pretrained(*args, **{"use_safetensors": True, **options})

    @classmethod
    def from_backbone(
        cls, name_or_dir: str, *, seed: int = 0, keep_layers: int = 0, **settings: Any
    ) -> SmartBertForSequenceClassification:
        """A pretrained encoder (hub name or folder, safetensors only) with fresh gates and exit heads.

        settings: fields of SmartBertConfig, such as `id2label` and `max_input_length`; `seed` draws the heads' weights;
        keep_layers: use only the encoder's first layers (0: all).
        Raises ConfigError for an encoder that cannot be loaded, is of an unsupported family, or is too short.
        """
        config = SmartBertConfig(backbone_config=read_backbone_config(name_or_dir, keep_layers), **settings)
        check_length(config.backbone_config, config.max_input_length)
        if config.layers < 2:
            raise ConfigError("the encoder has one layer: there is nothing to skip and nowhere to exit early")
        set_seed(seed)
        model = cls(config)
        load_backbone_weights(model.backbone, name_or_dir)
        return model

    def embed(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Ids (b,s) -> hidden (b,s,h) and the additive mask (b,1,1,s)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        hidden_bsh = self.config.family().embed(self.backbone, input_ids, token_type_ids)
        mask_b11s = (1.0 - attention_mask[:, None, None, :].to(hidden_bsh.dtype)) * MASKED
        return hidden_bsh, mask_b11s

    def run_layer(self, index: int, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
        """Encoder layer `index` (from 0)."""
        output = self.backbone.encoder.layer[index](hidden_bsh, mask_b11s)
        # transformers 4 returns a tuple, transformers 5 the tensor.
        return cast(Tensor, output[0] if isinstance(output, tuple) else output)

    def skip_logit(self, index: int, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
        """The skip logit (b) of the gate of layer `index` (from 0); -inf, never, where the model has no gates."""
        if not len(self.gates):
            return hidden_bsh.new_full((hidden_bsh.shape[0],), -math.inf)
        return cast(Tensor, self.gates[index](hidden_bsh, mask_b11s))

    def layer_steps(
        self, hidden_bsh: Tensor, mask_b11s: Tensor, *, skip_threshold: float | None = None, no_skip: bool = False
    ) -> Iterator[LayerStep]:
        """Gate and layer, one after another, on the embeddings' output: the one loop over layers in PyTorch.

        Every layer is computed for every row. Exit heads are the caller's. skip_threshold: default the config's.
        no_skip: gates are evaluated and not obeyed.
        """
        least = logit(self.config.skip_threshold if skip_threshold is None else skip_threshold)
        for index in range(len(self.exits)):
            skip_logit_b = self.skip_logit(index, hidden_bsh, mask_b11s)
            skips_b = torch.zeros_like(skip_logit_b, dtype=torch.bool) if no_skip else skip_logit_b >= least
            output_bsh = self.run_layer(index, hidden_bsh, mask_b11s)
            next_bsh = output_bsh if no_skip else torch.where(skips_b[:, None, None], hidden_bsh, output_bsh)
            yield LayerStep(index, skip_logit_b, skips_b, hidden_bsh, output_bsh, next_bsh)
            hidden_bsh = next_bsh

    def full_pass(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        skip_threshold: float | None = None,
        no_skip: bool = False,
    ) -> FullPass:
        """The hard-gated pass through all layers, every gate and every exit head evaluated; see `layer_steps`."""
        hidden_bsh, mask_b11s = self.embed(input_ids, attention_mask, token_type_ids)
        skip_logits, logits = [], []
        for step in self.layer_steps(hidden_bsh, mask_b11s, skip_threshold=skip_threshold, no_skip=no_skip):
            last = step.index == len(self.exits) - 1
            skip_logits.append(step.skip_logit_b)
            logits.append(self.exits[step.index](step.hidden_bsh if last else step.output_bsh, mask_b11s))
        return FullPass(torch.stack(skip_logits, dim=1), torch.stack(logits, dim=1))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Each row's answer by the inference rule with the config's thresholds: the usual Hugging Face surface.

        Every layer is computed for every row, so it saves nothing; `smartbert.reference` gives the trace, and the
        exported package the saving. The loss is that of the answers given.
        """
        run = self.full_pass(input_ids, attention_mask, token_type_ids)
        policy = Policy(skip_threshold=self.config.skip_threshold, exit_threshold=self.config.exit_threshold)
        decided = decide_recorded(_numpy(run.skip_logits_bl), _numpy(run.logits_blc), policy)
        exit_b = torch.from_numpy(decided.exit_layer_b - 1).to(run.logits_blc.device)
        logits_bc = run.logits_blc[torch.arange(len(exit_b), device=exit_b.device), exit_b]
        loss = None if labels is None else nn.functional.cross_entropy(logits_bc, labels)
        return SequenceClassifierOutput(loss=cast(Any, loss), logits=cast(Any, logits_bc))


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().float().cpu().numpy())


AutoConfig.register("smartbert", SmartBertConfig)
AutoModelForSequenceClassification.register(SmartBertConfig, SmartBertForSequenceClassification)

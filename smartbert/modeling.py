"""What SmartBERT is: an encoder with a skipping gate before and an exit head after every layer.

Hu et al., IJCAI 2023. Shape letters: b batch, s sequence, h hidden, w head width, a attention heads, c classes,
l layers. Masks are additive, shape b,1,1,s: 0 for a token, MASKED for padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertModel, PreTrainedModel, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from smartbert.configuration import SmartBertConfig
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.policy import logit

# Large enough that softmax gives exactly 0 in float32, small enough for float16.
MASKED = -10000.0


class FirstTokenAttention(nn.Module):
    """Multi-head self-attention of which only token 0's output is wanted, so only token 0 asks a query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"a head width of {width} cannot be split into {heads} attention heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, t_bsw: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,w), (b,1,1,s) -> (b,w): token 0 after attention over all tokens."""
        size = t_bsw.shape[-1] // self.heads
        # A slice and not an index: accelerators take Slice where they refuse a scalar Gather.
        query_ba1z = self._split(self.query(t_bsw[:, 0:1]), size)
        key_basz, value_basz = self._split(self.key(t_bsw), size), self._split(self.value(t_bsw), size)
        scores_ba1s = query_ba1z @ key_basz.transpose(-1, -2) / math.sqrt(size) + mask_b11s
        mixed_ba1z = scores_ba1s.softmax(dim=-1) @ value_basz
        return mixed_ba1z.reshape(-1, self.heads * size)

    def _split(self, x_bsw: Tensor, size: int) -> Tensor:
        return x_bsw.reshape(x_bsw.shape[0], x_bsw.shape[1], self.heads, size).transpose(1, 2)


class SkipGate(nn.Module):
    """Decides from a layer's input whether the layer can be left out: sigmoid(output) = probability of skipping."""

    def __init__(self, config: SmartBertConfig) -> None:
        super().__init__()
        self.project = nn.Linear(config.hidden_size, config.head_width)
        self.attention = FirstTokenAttention(config.head_width, config.gate_heads)
        self.decide = nn.Linear(config.head_width, 1)
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
        self.attention = FirstTokenAttention(config.head_width, config.exit_heads)
        self.dense = nn.Linear(config.head_width, config.head_width)
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
class FullPass:
    """Skip logits (b,l) and exit logits (b,l,c); the last head reads x_L, the others their own layer's output."""

    skip_logits_bl: Tensor
    logits_blc: Tensor


class SmartBertForSequenceClassification(PreTrainedModel):
    """Backbone, one gate and one exit head a layer. `gates[0]` decides about layer 1, `exits[0]` answers after it."""

    config_class = SmartBertConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    config: SmartBertConfig

    def __init__(self, config: SmartBertConfig) -> None:
        super().__init__(config)
        if config.num_labels < 2:
            raise ConfigError(f"a classifier needs at least two classes, not {config.num_labels}")
        encoder_config = config.backbone()
        # Plain matrix products: what is traced for ONNX is then exactly what answers here.
        encoder_config._attn_implementation = "eager"
        self.backbone = BertModel(encoder_config, add_pooling_layer=False)
        self.gates = nn.ModuleList(SkipGate(config) for _ in range(config.layers))
        self.exits = nn.ModuleList(ExitHead(config) for _ in range(config.layers))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: gates and heads begin as their constructors make them, the backbone initialises itself."""

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """As every model's, but safetensors only: a pickled checkpoint can run code when it is read."""
        return super().from_pretrained(*args, **{"use_safetensors": True, **options})

    @classmethod
    def from_backbone(cls, name_or_dir: str, *, seed: int = 0, **settings: Any) -> SmartBertForSequenceClassification:
        """A pretrained encoder (hub name or folder, safetensors only) with fresh gates and exit heads.

        settings: fields of SmartBertConfig, such as `id2label` and `max_input_length`; `seed` draws the heads' weights.
        Raises ConfigError for an encoder that cannot be loaded, is of an unsupported family, or is too short.
        """
        encoder_config = _load_or_explain(AutoConfig, name_or_dir)
        # Without the place it was read from, which is nobody's business and would change the checkpoint's digest.
        backbone_config = encoder_config.to_dict()
        backbone_config.pop("_name_or_path", None)
        config = SmartBertConfig(backbone_config=backbone_config, **settings)
        config.backbone()
        limit = int(encoder_config.max_position_embeddings)
        if not 2 <= config.max_input_length <= limit:
            raise ConfigError(
                f"the longest input must be from 2 to {limit} tokens, the backbone's limit, "
                f"not {config.max_input_length}",
                hint="change --max-length",
            )
        if config.layers < 2:
            raise ConfigError("the encoder has one layer: there is nothing to skip and nowhere to exit early")
        set_seed(seed)
        model = cls(config)
        encoder, info = _load_or_explain(
            BertModel, name_or_dir, add_pooling_layer=False, use_safetensors=True, output_loading_info=True
        )
        if info["missing_keys"]:
            raise ConfigError(
                f"the encoder {name_or_dir!r} lacks weights, such as {min(info['missing_keys'])}",
                hint="its model.safetensors is not whole, or belongs to another config.json",
            )
        # Copied, not handed over: wrapping a loaded encoder would let transformers initialise it once more.
        model.backbone.load_state_dict(encoder.state_dict())
        return model

    def embed(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Ids (b,s) -> hidden (b,s,h) and the additive mask (b,1,1,s)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        hidden_bsh = self.backbone.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        mask_b11s = (1.0 - attention_mask[:, None, None, :].to(hidden_bsh.dtype)) * MASKED
        return hidden_bsh, mask_b11s

    def run_layer(self, index: int, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
        """Encoder layer `index` (from 0)."""
        output = self.backbone.encoder.layer[index](hidden_bsh, mask_b11s)
        # transformers 4 returns a tuple, transformers 5 the tensor.
        return cast(Tensor, output[0] if isinstance(output, tuple) else output)

    def full_pass(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> FullPass:
        """The hard-gated way through all layers, every gate and every exit head asked on it."""
        x_bsh, mask_b11s = self.embed(input_ids, attention_mask, token_type_ids)
        skip_logits, logits = [], []
        for index, (gate, head) in enumerate(zip(self.gates, self.exits, strict=True)):
            skip_logits.append(gate(x_bsh, mask_b11s))
            output_bsh = self.run_layer(index, x_bsh, mask_b11s)
            skips_b = skip_logits[-1] >= logit(self.config.skip_threshold)
            x_bsh = torch.where(skips_b[:, None, None], x_bsh, output_bsh)
            last = index == len(self.gates) - 1
            logits.append(head(x_bsh if last else output_bsh, mask_b11s))
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
        skips_bl = run.skip_logits_bl >= logit(self.config.skip_threshold)
        entropy_bl = torch.special.entr(run.logits_blc.softmax(-1)).sum(-1) / math.log(self.config.num_labels)
        answers_bl = ~skips_bl & (entropy_bl < self.config.exit_threshold)
        answers_bl[:, -1] = True
        first_b = answers_bl.to(torch.int64).argmax(dim=1)
        logits_bc = run.logits_blc[torch.arange(len(first_b), device=first_b.device), first_b]
        loss = None if labels is None else nn.functional.cross_entropy(logits_bc, labels)
        return SequenceClassifierOutput(loss=cast(Any, loss), logits=cast(Any, logits_bc))


def _load_or_explain(loader: Any, name_or_dir: str, **options: Any) -> Any:
    """`loader.from_pretrained`, its many ways to fail turned into one error with a hint."""
    try:
        return loader.from_pretrained(name_or_dir, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as err:
        first_line = str(err).strip().splitlines()[0]
        raise ConfigError(
            f"the encoder {name_or_dir!r} cannot be loaded: {first_line}",
            hint="give a folder with config.json and model.safetensors, or a hub name that you can reach",
        ) from err


AutoConfig.register("smartbert", SmartBertConfig)
AutoModelForSequenceClassification.register(SmartBertConfig, SmartBertForSequenceClassification)

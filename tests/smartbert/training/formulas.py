"""METHOD's loss terms written out token by token and text by text: what the tests of objectives recompute.

Shape letters: b batch, s sequence, h hidden, w width, c classes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from smartbert.modeling import ContrastHead, SmartBertForSequenceClassification
from smartbert.training.objectives import Objective
from tests.conftest import LAYERS
from tests.smartbert.conftest import TINY_SETTINGS, Batch

# Every share and temperature differs from the others, so that none can be mixed up unseen.
SETTINGS = replace(TINY_SETTINGS, gate_lambda=0.7, eta1=0.3, eta2=0.4, temperature1=0.5, temperature2=0.65)
# Nothing but the task's cross entropy.
BARE = replace(SETTINGS, gate_lambda=0.0, eta1=0.0, eta2=0.0)
MASKED = -10000.0


def embed(model: SmartBertForSequenceClassification, batch: Batch) -> tuple[Tensor, Tensor]:
    """x_0 and the additive mask."""
    x_bsh = model.backbone.embeddings(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
    return x_bsh, (1.0 - batch["attention_mask"][:, None, None, :].float()) * MASKED


def layer(model: SmartBertForSequenceClassification, index: int, x_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
    output = model.backbone.encoder.layer[index](x_bsh, mask_b11s)
    return cast(Tensor, output[0] if isinstance(output, tuple) else output)


def projected(contrast: nn.Module, x_bsz: Tensor) -> Tensor:
    """A contrast head's layers, then each token's vector divided by its length."""
    x_bsw = cast(ContrastHead, contrast).layers(x_bsz)
    return cast(Tensor, x_bsw / x_bsw.pow(2).sum(-1, keepdim=True).sqrt())


def cross_entropy(logits_bc: Tensor, labels_b: Tensor) -> float:
    rows = [-math.log(row.softmax(-1)[label].item()) for row, label in zip(logits_bc, labels_b.tolist(), strict=True)]
    return sum(rows) / len(rows)


def contrast_of(
    this_bsw: Tensor, next_bsw: Tensor, valid_bs: Tensor, temperature: float, *, positive_in_sum: bool
) -> float:
    """The mean over tokens of -log(e^positive / sum e^similarity), one token at a time."""
    terms: list[float] = []
    for q_sw, r_sw, valid_s in zip(this_bsw.double(), next_bsw.double(), valid_bs.tolist(), strict=True):
        tokens = [token for token, valid in enumerate(valid_s) if valid]
        for t in tokens:
            others = [u for u in tokens if positive_in_sum or u != t]
            if others:
                total = sum(math.exp((q_sw[t] @ r_sw[u]).item() / temperature) for u in others)
                terms.append(math.log(total) - (q_sw[t] @ r_sw[t]).item() / temperature)
    return sum(terms) / len(terms)


def loss_of(objective: Objective, batch: Batch) -> Tensor:
    return objective.loss(batch["input_ids"], batch["attention_mask"], batch["labels"], batch["token_type_ids"])


def without_gradient(module: nn.Module) -> list[str]:
    """Parameters that the loss does not move; key biases shift all scores alike, so a softmax never sees them."""
    return [
        name
        for name, parameter in module.named_parameters()
        if "key.bias" not in name and (parameter.grad is None or not parameter.grad.abs().max() > 0.0)
    ]


def early_heads(model: SmartBertForSequenceClassification, x_bsh: Tensor, mask_b11s: Tensor) -> list[Tensor]:
    """What each head but the last answers on the way on which every layer is run."""
    answers = []
    for index in range(LAYERS - 1):
        x_bsh = layer(model, index, x_bsh, mask_b11s)
        answers.append(cast(Tensor, model.exits[index](x_bsh, mask_b11s)))
    return answers


def full_depth(model: SmartBertForSequenceClassification, batch: Batch) -> Tensor:
    """The last head's answer after every layer, gates not asked."""
    x_bsh, mask_b11s = embed(model, batch)
    for index in range(LAYERS):
        x_bsh = layer(model, index, x_bsh, mask_b11s)
    return cast(Tensor, model.exits[-1](x_bsh, mask_b11s))


def divergence(student_bc: Tensor, teacher_bc: Tensor, temperature: float) -> float:
    """T^2 times the mean over texts of sum p ln(p / q), p the teacher's and q the student's softened answers."""
    p_bc, q_bc = ((logits_bc.double() / temperature).softmax(-1) for logits_bc in (teacher_bc, student_bc))
    return temperature**2 * (p_bc * (p_bc / q_bc).log()).sum(-1).mean().item()

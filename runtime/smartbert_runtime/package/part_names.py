"""Names of parts: `layer_03` is the part of role layer at layer 3; `embeddings` and `model` have no layer."""

from __future__ import annotations

import functools

EMBEDDINGS, GATE, LAYER, EXIT, BLOCK, MODEL = ROLES = ("embeddings", "gate", "layer", "exit", "block", "model")


@functools.cache
def part_name(role: str, layer: int) -> str:
    """("gate", 3) -> "gate_03"; the role itself for those without a layer: ("embeddings", 0) -> "embeddings"."""
    return role if role in (EMBEDDINGS, MODEL) else f"{role}_{layer:02d}"


def role_and_layer(part: str) -> tuple[str, int]:
    """The reverse of `part_name`: "gate_03" -> ("gate", 3), "embeddings" -> ("embeddings", 0)."""
    role, _, layer = part.partition("_")
    return role, int(layer or 0)

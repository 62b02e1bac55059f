"""The precisions of an export, and the schemes by which a part's numbers are made int8 or int4."""

from __future__ import annotations

from smartbert_runtime.package.part_names import EMBEDDINGS

FP32, INT8, INT4 = "fp32", "int8", "int4"
PRECISIONS = (FP32, INT8, INT4)

# Largest weight by target. Without VNNI, x86 adds two products of 255 and a weight in 16 bits, which must not overflow.
WEIGHT_RANGE = {"x86": 64, "x86-vnni": 127, "arm64": 127}

# int8 activations: one scale a tensor, fixed at export, over the whole recorded range or over the part of it with the
# least squared error; or one scale a token, computed when it runs.
STATIC, STATIC_CLIPPED, PER_TOKEN = "static", "static, clipped", "per token"
# Parts without products: the embeddings' tables only.
TABLE_ROWS = "table rows"
# int4: a scale for each block of weights.
BLOCKS = "blocks"


def schemes(role: str, precision: str, *, ranges: bool) -> tuple[tuple[str, ...], ...]:
    """What to try for a part of this role, in order; of schemes in one tuple, the one with the smallest error.

    ranges: whether recorded ranges of activations are at hand.
    """
    if role == EMBEDDINGS:
        return ((TABLE_ROWS,),)
    if precision == INT4:
        return ((BLOCKS,),)
    return ((STATIC, STATIC_CLIPPED), (PER_TOKEN,)) if ranges else ((PER_TOKEN,),)

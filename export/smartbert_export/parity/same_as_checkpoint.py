"""Before anything is cut: the package's tokenizer against the checkpoint's, and our pass against its own class.

Parity of the graphs is measured on the package's own ids and against our pass; here is why both can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from smartbert.reference import trace_one
from smartbert_export.parity.made_texts import TextRow, made_texts
from smartbert_export.source_checkpoint import SourceCheckpoint
from smartbert_runtime.errors import ExportError
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.tokenizer import Tokenizer

# Between two orders of the same float32 sums; an answer that is wrong is off by far more.
ABSOLUTE, RELATIVE = 1e-4, 1e-4


def check_same_as_checkpoint(
    source: SourceCheckpoint,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    *,
    reporter: Reporter = SILENT,
) -> None:
    """Compare token ids and answers with those of the checkpoint's own tokenizer and class, one text at a time.

    On the given texts and on texts made for the purpose; ExportError names the first that differs.
    """
    limit = tokenizer.settings.max_length
    given: list[TextRow] = [(text, None if pairs is None else pairs[row]) for row, text in enumerate(texts)]
    made = made_texts(source.tokenizer, texts, pairs, limit)
    if source.text_pairs is False:
        made = [row for row in made if row[1] is None]
    reporter.step(f"comparing tokens and answers of {len(given) + len(made)} texts with the checkpoint's own class")
    for row in [*given, *made]:
        _check(source, tokenizer, row, limit)


@torch.inference_mode()
def _check(source: SourceCheckpoint, tokenizer: Tokenizer, row: TextRow, limit: int) -> None:
    text, pair = row
    wanted = source.tokenizer(text, pair, truncation=True, max_length=limit)
    found = tokenizer.encode([text], None if pair is None else [pair])
    shown = repr(text[:60]) + ("" if pair is None else f" with {pair[:60]!r}")
    types = wanted.get("token_type_ids") or [0] * len(wanted["input_ids"])
    ids_s, types_s = found.input_ids_bs[0].tolist(), found.token_type_ids_bs[0].tolist()
    if (ids_s, types_s) != (list(wanted["input_ids"]), list(types)) or not all(wanted["attention_mask"]):
        raise ExportError(
            f"the checkpoint's tokenizer reads {shown} as other tokens than its tokenizer.json does",
            hint="it has a setting or code of its own that the file does not hold, and cannot be exported",
        )
    if not ids_s or max(ids_s) >= int(source.model.config.backbone_config["vocab_size"]):
        raise ExportError(
            f"the checkpoint's tokenizer reads {shown} as {'no token' if not ids_s else 'a token without embedding'}",
            hint="is it the tokenizer that the model was trained with?",
        )
    batch = source.tokenizer(text, pair, truncation=True, max_length=limit, return_tensors="pt")
    wanted_c = source.own_logits(**batch)[0].numpy()
    found_c = trace_one(source.model, ids_s, types_s, source.policy()).logits_c
    if not np.allclose(found_c, wanted_c, atol=ABSOLUTE, rtol=RELATIVE):
        raise ExportError(
            f"the checkpoint's own class answers {shown} otherwise than the sum of its parts: logits "
            f"{float(np.abs(found_c - wanted_c).max()):.1e} apart",
            hint="its config.json describes something else than a plain encoder",
        )

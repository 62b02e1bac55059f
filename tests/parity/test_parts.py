"""Every part against PyTorch on the same input, from 1 token to the longest, one text and padded batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.parts.modules import part_module
from smartbert_export.parts.signatures import parts
from smartbert_runtime import SmartBert
from tests.parity.paper_oracle import random_rows

# As the runtime's own tolerance: a share of the largest number in PyTorch's output, at least of 1.
SHARE = 4e-6
MAX_LENGTH = 24

BATCHES = [
    *[pytest.param([length], length, id=f"single-{length}") for length in range(1, MAX_LENGTH + 1)],
    *[pytest.param([length], MAX_LENGTH, id=f"padded-{length}") for length in (1, 2, 11, 23)],
    pytest.param([24, 1], None, id="longest-and-shortest"),
    pytest.param([3, 3, 3], None, id="three-equal"),
    pytest.param(list(range(1, 25)), None, id="every-length"),
]


@pytest.mark.parametrize(("lengths", "width"), BATCHES)
def test_parts_match_pytorch(
    classifier: SmartBert, model: SmartBertForSequenceClassification, lengths: list[int], width: int | None
) -> None:
    tokens = random_rows(lengths, model.config.backbone_config["vocab_size"], width=width, seed=len(lengths))
    feeds: dict[str, NDArray[np.generic]] = dict(tokens.feeds())
    # Gates and exit heads are exported in a reduced form; they must equal the trained form.
    own = {"gate": model.gates, "exit": model.exits}
    compared: list[str] = []
    for part in parts(model.config, "separate"):
        found = classifier.sessions.run(part.name, feeds)
        module = own[part.role][part.index - 1] if part.role in own else part_module(model, part.role, part.index)
        with torch.inference_mode():
            answer = module(*(torch.from_numpy(array) for array in feeds.values()))
        expected = [tensor.numpy() for tensor in (answer if isinstance(answer, tuple) else (answer,))]
        for wanted, got in zip(expected, found, strict=True):
            assert got.shape == wanted.shape and got.dtype == np.float32
            allowed = SHARE * max(1.0, float(np.abs(wanted[wanted > -1000]).max(initial=0.0)))
            assert np.abs(got - wanted).max() <= allowed, (
                f"{part.name}: {np.abs(got - wanted).max():.1e} > {allowed:.1e}"
            )
        compared.append(part.name)
        # Each part gets PyTorch's own numbers, so that errors do not add up.
        if part.role == "embeddings":
            feeds = {"hidden": expected[0], "mask": expected[1]}
        elif part.role == "layer":
            feeds["hidden"] = expected[0]
    assert len(compared) == 13


def test_padding_changes_no_output(classifier: SmartBert, model: SmartBertForSequenceClassification) -> None:
    padded = random_rows([5], model.config.backbone_config["vocab_size"], width=MAX_LENGTH)
    (single_bsh, mask_b11s), (wide_bsh, wide_mask_b11s) = (
        classifier.sessions.run("embeddings", tokens.feeds()) for tokens in (padded.rows([0]), padded)
    )
    assert single_bsh.shape == (1, 5, 32) and wide_bsh.shape == (1, 24, 32)
    for part in ("gate_01", "layer_01", "exit_01", "gate_04", "layer_04", "exit_04"):
        (single,) = classifier.sessions.run(part, {"hidden": single_bsh, "mask": mask_b11s})
        (wide,) = classifier.sessions.run(part, {"hidden": wide_bsh, "mask": wide_mask_b11s})
        np.testing.assert_allclose(wide[:, :5] if part.startswith("layer") else wide, single, atol=1e-5)

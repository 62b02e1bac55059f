"""The sentences as tokens, for every engine."""

from __future__ import annotations

import pytest

from smartbert_runtime.tokenizer import Tokens
from tests.conftest import SENTENCES
from tests.runtime.engine.torch_parts import encode


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """SENTENCES in one padded batch; read only."""
    return encode(SENTENCES)

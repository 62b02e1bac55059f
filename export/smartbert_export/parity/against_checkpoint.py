"""PyTorch as the oracle of a package: the same texts, run by the checkpoint that it was made from."""

from __future__ import annotations

from pathlib import Path

from smartbert_export.parity.probes import wide_probes
from smartbert_export.parity.record import record
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.open import Package
from smartbert_runtime.parity.golden import Golden, read_golden
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import Columns, check_pairs
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.tokenizer import Tokenizer


def record_checkpoint(
    checkpoint: Path,
    package: Package,
    file: Path | None,
    policy: Policy,
    *,
    columns: Columns | None = None,
    reporter: Reporter = SILENT,
) -> Golden:
    """PyTorch's answers for the texts of `file` (None: the golden ones), with probes from 1 token to the longest."""
    reporter.step("loading the checkpoint")
    source = open_checkpoint(checkpoint, gates=package.manifest.model.gates)
    if source.labels != package.manifest.labels or source.model.config.layers != package.manifest.model.layers:
        raise InputError(
            f"{checkpoint} has other labels or another depth than the package",
            hint="is it the one it was made from?",
        )
    if file is None:
        tokens = read_golden(package).tokens
    else:
        examples = read_examples(file, columns)
        check_pairs(source.text_pairs, examples.pairs is not None, examples.source)
        tokens = Tokenizer.from_package(package).encode(examples.texts, examples.pairs)
    reporter.step(f"running {len(tokens.truncated)} texts in PyTorch")
    return record(source.model, wide_probes(tokens, package.manifest.model.max_length), tokens, policy)

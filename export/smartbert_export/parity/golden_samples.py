"""Step 2 of an export: PyTorch's answers for the golden texts, recorded before the model is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smartbert.checkpoint_folder import GOLDEN_TEXTS_FILE
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.parity.probes import small_probes, wide_probes
from smartbert_export.parity.record import clear_calls, record, record_probe
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ExportError
from smartbert_runtime.parity.golden import Golden, Probe, pack
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import Examples, read_examples
from smartbert_runtime.tokenizer import Tokenizer

MAX_BYTES = 5_000_000


@dataclass(frozen=True, kw_only=True)
class GoldenRecord:
    """Golden samples, and the two files that they become.

    expected_npz: the samples. texts_jsonl: their texts; None where only token ids are shipped.
    wide_probes: from one token to the longest input; to verify the export with, too large to ship.
    """

    samples: Golden
    expected_npz: bytes
    texts_jsonl: bytes | None
    wide_probes: tuple[Probe, ...]

    def with_wide_probes(self) -> Golden:
        """The samples that the export is verified with."""
        return replace(self.samples, probes=self.wide_probes)

    def skipped_share(self) -> float:
        """Share of the layers that the texts reach and their gates skip."""
        skipped = sum(len(trace.layers_skipped) for trace in self.samples.traces)
        return skipped / (skipped + sum(len(trace.layers_run) for trace in self.samples.traces))


def read_golden_texts(checkpoint: Path, golden_file: Path | None) -> Examples:
    """The texts of `golden_file`; None: those that the checkpoint keeps. ExportError where it keeps none."""
    file = golden_file or checkpoint / GOLDEN_TEXTS_FILE
    if golden_file is None and not file.is_file():
        raise ExportError(
            f"{checkpoint} holds no {GOLDEN_TEXTS_FILE}", hint="give texts to record with --golden-file FILE"
        )
    return read_examples(file, Columns())


def record_golden(
    model: SmartBertForSequenceClassification,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    policy: Policy,
    *,
    ship_texts: bool = True,
    reporter: Reporter = SILENT,
) -> GoldenRecord:
    """Run the texts in PyTorch under `policy`, without those whose decisions another machine's rounding could turn.

    Raises ExportError where no text is left, or where they take more than 5 MB.
    """
    reporter.step("recording golden samples")
    tokens = tokenizer.encode(texts, pairs)
    golden = record(model, small_probes(model, tokens), tokens, policy)
    clear = clear_calls(golden, policy)
    if not clear:
        raise ExportError(
            "every golden text has a decision too near its threshold to be replayed on another machine",
            hint="give other texts with --golden-file",
        )
    if len(clear) < len(golden.traces):
        left_out = len(golden.traces) - len(clear)
        reporter.note(f"{left_out} golden texts left out: a decision too near its threshold")
    samples = replace(golden, tokens=tokens.rows(clear), traces=tuple(golden.traces[row] for row in clear))
    expected_npz = pack(samples)
    texts_jsonl = _json_lines(texts, pairs, clear) if ship_texts else None
    if len(expected_npz) + len(texts_jsonl or b"") > MAX_BYTES:
        raise ExportError(f"{len(clear)} golden texts take more than 5 MB", hint="give fewer with --golden-file")
    wide = wide_probes(samples.tokens, tokenizer.settings.max_length)
    return GoldenRecord(
        samples=samples,
        expected_npz=expected_npz,
        texts_jsonl=texts_jsonl,
        wide_probes=tuple(record_probe(model, probe) for probe in wide),
    )


def _json_lines(texts: Sequence[str], pairs: Sequence[str] | None, rows: Sequence[int]) -> bytes:
    entries = [{"text": texts[row]} | ({} if pairs is None else {"text_pair": pairs[row]}) for row in rows]
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode()

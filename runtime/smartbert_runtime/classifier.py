"""SmartBert: opens a package folder and classifies texts, streams of texts and files. The public Python surface."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from smartbert_runtime.classify_file import FilePredictions, classify_file
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import softmax
from smartbert_runtime.engine.run import check_runnable, run_layout
from smartbert_runtime.engine.stopwatch import Stopwatch
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.package.policy_file import PolicyFile
from smartbert_runtime.prediction import Prediction
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.input_texts import InputText
from smartbert_runtime.tokenizer import Tokenizer, batches_by_length
from smartbert_runtime.trace import TOKENIZER, PartRun

DEFAULT_PRESET = "default"
DEFAULT_BATCH_SIZE = 32
WINDOW = 8


class SmartBert:
    """Text classifier over a package folder.

    >>> model = SmartBert.load("out/")
    >>> model.classify(["WINNER!! Claim your 900 pound prize reward, call 09061701461. Valid 12 hours"])[0].label
    'spam'

    Any number of threads may classify with one of these at once. A forked child (as of `multiprocessing`) loads its own
    graphs at its first text, but not after `share_thread_pool`. `close`, or leaving a `with` block, releases them.
    """

    def __init__(self, package: Package, sessions: Sessions, tokenizer: Tokenizer, policies: PolicyFile) -> None:
        self.package, self.sessions, self.tokenizer, self.policies = package, sessions, tokenizer, policies
        self._closed = False

    def __enter__(self) -> SmartBert:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release every graph; classifying afterwards is a ConfigError. Closing twice is allowed.

        Not while another thread classifies. Working memory, which all models of a process share, stays allocated.
        """
        self._closed = True
        self.sessions.close()

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        layout: str | None = None,
        precision: str | None = None,
        providers: Sequence[str] = (CPU,),
        threads: int | None = None,
        preload: bool = False,
    ) -> SmartBert:
        """Open a package folder; graphs are loaded when a text first needs them, or all at once with `preload`.

        layout, precision: which variant to run; None takes the package's first.
        providers: onnxruntime execution providers, in order of preference; "layer=NAME" for parts of one role.
        threads: cores each part may use; None takes those this process is allowed.
        Raises ManifestError or IntegrityError for a folder that is not whole, ProviderError for unknown providers.
        """
        package = open_package(folder)
        variant = package.manifest.variant(layout, precision)
        sessions = Sessions(package, variant, providers=providers, threads=threads)
        if preload:
            sessions.open_all()
        return cls(package, sessions, Tokenizer.from_package(package), package.policies())

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.package.manifest.labels

    def policy(self, preset: str = DEFAULT_PRESET) -> Policy:
        """A named preset of policy.json for the variant that was loaded."""
        return self.policies.preset(self.sessions.variant.name, preset)

    def classify(
        self,
        texts: Sequence[str],
        *,
        text_pairs: Sequence[str] | None = None,
        policy: Policy | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
    ) -> list[Prediction]:
        """One prediction a text, in the order given.

        policy: thresholds to use instead of the package's preset "default".
        batch_size: texts computed together; it changes speed, never an answer, unless the policy has a deadline:
        that is the batch's, so give 1 for a deadline of each text's own.
        truncate: false refuses texts longer than the model (InputError) instead of cutting them.
        """
        if isinstance(texts, str) or isinstance(text_pairs, str):
            raise InputError("classify takes a list of texts, not one string", hint="classify([text])")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {batch_size}", hint="change --batch-size")
        if self._closed:
            raise ConfigError("this model was closed", hint="load the package again")
        check_texts(texts, text_pairs)
        policy = self.policy() if policy is None else policy
        check_runnable(self.sessions, policy)
        if policy.deadline_ms is not None:
            self.sessions.open_all()  # loading is no part of a text's time
        started = time.perf_counter()
        # All of them before the first batch: the tokenizer's threads and onnxruntime's would fight for the cores at
        # every batch, and batches of texts of similar length, which need little padding, need every text's length.
        tokenized = self.tokenizer.tokenize(texts, text_pairs, truncate=truncate)
        seconds_per_text = (time.perf_counter() - started) / max(len(texts), 1)
        predictions: dict[int, Prediction] = {}
        for rows in batches_by_length([len(text.ids_s) for text in tokenized], batch_size):
            share = len(rows) * seconds_per_text
            tokenizing = PartRun(part=TOKENIZER, started=started, seconds=share, rows=len(rows))
            started += share
            batch_started = time.perf_counter()
            tokens = self.tokenizer.pad([tokenized[row] for row in rows])
            padded = time.perf_counter() - batch_started
            stopwatch = Stopwatch()
            outcomes = run_layout(self.sessions, tokens, policy, since=batch_started - share, stopwatch=stopwatch)
            runs = (tokenizing, *stopwatch.runs)
            probabilities_bc = softmax(np.stack([outcome.trace.logits_c for outcome in outcomes]))
            for row, outcome, probabilities_c in zip(rows, outcomes, probabilities_bc.tolist(), strict=True):
                best = probabilities_c.index(max(probabilities_c))
                predictions[row] = Prediction(
                    text=texts[row],
                    text_pair=text_pairs[row] if text_pairs is not None else None,
                    label=self.labels[best],
                    score=probabilities_c[best],
                    probabilities=dict(zip(self.labels, probabilities_c, strict=True)),
                    trace=replace(outcome.trace, batch_runs=runs),
                    latency_ms=(share + padded + outcome.seconds) * 1000.0,
                    truncated=tokenized[row].truncated,
                )
        return [predictions[row] for row in range(len(texts))]

    def classify_file(
        self,
        file: Path | str,
        *,
        columns: Columns | None = None,
        policy: Policy | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
        skip_bad_lines: bool = False,
        reporter: Reporter = SILENT,
    ) -> AbstractContextManager[FilePredictions]:
        """Classify the texts of a txt, csv, tsv or jsonl file, or of standard input for `-`, WINDOW batches at a time.

        >>> with model.classify_file("messages.csv") as predictions:
        ...     for index, prediction in predictions:
        ...         print(index, prediction.label)

        A file is read twice, the first time to check it: the InputError for a bad line is raised before any answer. A
        pipe can only be read once: its lines are answered as they arrive, up to the first bad one.
        columns: where the texts are; None goes by the names that public data sets use.
        skip_bad_lines: report each bad line to `reporter` as a note and continue with the next one; a file is then read
        once. InputError only when every line is bad, or for the file as a whole (no known column, no rows).
        policy, batch_size, truncate: as in `classify`; with `truncate` false, a text that is too long is a bad line.
        """

        def classify(texts: Sequence[str], text_pairs: Sequence[str] | None) -> list[Prediction]:
            return self.classify(texts, text_pairs=text_pairs, policy=policy, batch_size=batch_size, truncate=truncate)

        def refuse_long(text: InputText) -> None:
            self.tokenizer.tokenize([text.text], None if text.pair is None else [text.pair], truncate=False)

        classify([], None)  # reports bad arguments before the file is read
        return classify_file(
            file,
            Columns() if columns is None else columns,
            classify,
            check=None if truncate else refuse_long,
            window=WINDOW * batch_size,
            skip_bad_lines=skip_bad_lines,
            reporter=reporter,
        )

    def stream(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        policy: Policy | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
    ) -> Iterator[Prediction]:
        """Predictions in the order of `texts`, only WINDOW batches of which are held in memory at a time.

        texts: any iterable, endless ones too, of texts or of (text, second text); the other arguments are
        `classify`'s. Texts of a window share batches by length; the first answer waits for one window, not for the end.
        """
        if isinstance(texts, str):
            raise InputError("stream takes an iterable of texts, not one string", hint="stream([text])")
        # Errors in the arguments are raised now, not at the first answer.
        self.classify([], policy=policy, batch_size=batch_size)
        return self._stream(iter(texts), policy, batch_size, truncate)

    def _stream(
        self, source: Iterator[str | tuple[str, str]], policy: Policy | None, batch_size: int, truncate: bool
    ) -> Iterator[Prediction]:
        seen = 0
        while window := list(itertools.islice(source, WINDOW * batch_size)):
            paired = isinstance(window[0], tuple)
            if any(isinstance(text, tuple) is not paired for text in window):
                raise InputError("single texts and pairs of texts are mixed", hint="give one kind")
            for number, text in enumerate(window, start=seen + 1):
                if isinstance(text, tuple) and len(text) != 2:
                    raise InputError(f"text {number} is a tuple of {len(text)}, not of 2", hint="(text, second text)")
            singles = [text[0] for text in window] if paired else cast(list[str], window)
            pairs = [text[1] for text in window] if paired else None
            check_texts(singles, pairs, first=seen + 1)
            yield from self.classify(singles, text_pairs=pairs, policy=policy, batch_size=batch_size, truncate=truncate)
            seen += len(window)


def check_texts(texts: Sequence[str], text_pairs: Sequence[str] | None, *, first: int = 1) -> None:
    """InputError for texts that are no strings, empty, or lack their second text; `first` is the first's number."""
    if text_pairs is not None and len(text_pairs) != len(texts):
        raise InputError(f"{len(texts)} texts but {len(text_pairs)} second texts", hint="give one for each text")
    for place, rows in (("text", texts), ("second text", text_pairs or ())):
        for number, text in enumerate(rows, start=first):
            if not isinstance(text, str):
                raise InputError(f"{place} {number} is not a text but {type(text).__name__}", hint="give strings")
            if not text.strip():
                raise InputError(f"{place} {number} is empty", hint="remove it, or give it some words")

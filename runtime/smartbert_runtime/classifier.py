"""SmartBert: opens a package folder and classifies texts, streams of texts and files. The public Python surface."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from smartbert_runtime.classify_file import FilePredictions, classify_file
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import softmax
from smartbert_runtime.engine.run import check_runnable, run_layout
from smartbert_runtime.engine.stopwatch import Stopwatch
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.package.hub import local_folder
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.package.policy_file import PolicyFile
from smartbert_runtime.prediction import Prediction
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.text_files.columns import Columns, check_pairs
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

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str, *, revision: str | None = None, **options: Any) -> SmartBert:
        """A package in a folder, or of a repository on the Hugging Face hub, downloaded unless it is in the cache.

        revision: of the repository: a branch, a tag or a commit. options: those of `load`.
        Raises InputError where the hub has no such repository or cannot be reached, MissingExtraError without the
        package `huggingface_hub`; otherwise as `load`.
        """
        return cls.load(local_folder(name_or_folder, revision), **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, copied or spawned: opened again from its folder, which has to be there."""
        if self._closed:
            raise ConfigError("this model was closed", hint="load the package again")
        sessions, variant = self.sessions, self.sessions.variant
        given = {name: value for name, value in sessions.role_providers.items() if name}
        providers = [*sessions.providers, *(f"{role}={name}" for role, names in given.items() for name in names)]
        options = {
            "layout": variant.layout,
            "precision": variant.precision,
            "providers": tuple(providers),
            "threads": sessions.threads,
        }
        return _load_again, (self.package.root, options)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.package.manifest.labels

    def policy(self, preset: str = DEFAULT_PRESET, **changes: Any) -> Policy:
        """A named preset of policy.json for the variant that was loaded, with fields of Policy changed.

        >>> model.policy(deadline_ms=5.0)
        """
        own = self.policies.preset(self.sessions.variant.name, preset)
        if not changes:  # as for every text that is classified without a policy
            return own
        known = {field.name for field in fields(Policy)}
        if unknown := sorted(set(changes) - known):
            raise ConfigError(f"a policy has no {unknown[0]!r}", hint="it has: " + ", ".join(sorted(known)))
        return replace(own, **changes)

    def classify(
        self,
        texts: Iterable[str],
        *,
        text_pairs: Iterable[str] | None = None,
        policy: Policy | str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
    ) -> list[Prediction]:
        """One prediction a text, in the order given.

        texts, text_pairs: any iterable of strings, such as a list, a generator, an array or a column of a table.
        policy: thresholds to use instead of the package's preset "default", or the name of another preset. What is
        not given of a Policy is the default preset's.
        batch_size: texts computed together; it changes speed, never an answer, unless the policy has a deadline:
        that is the batch's, so give 1 for a deadline of each text's own.
        truncate: false refuses texts longer than the model (InputError) instead of cutting them.
        """
        texts = as_list(texts, "classify")
        text_pairs = None if text_pairs is None else as_list(text_pairs, "classify")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {batch_size}", hint="the texts computed together")
        if self._closed:
            raise ConfigError("this model was closed", hint="load the package again")
        check_texts(texts, text_pairs)
        if texts:
            check_pairs(self.package.manifest.model.text_pairs, text_pairs is not None, "classify")
        policy = self._complete(policy)
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
            running = time.perf_counter()
            outcomes = run_layout(self.sessions, tokens, policy, since=batch_started - share, stopwatch=stopwatch)
            runs = (tokenizing, *stopwatch.runs)
            probabilities_bc = softmax(np.stack([outcome.trace.logits_c for outcome in outcomes]))
            for row, outcome, probabilities_c in zip(rows, outcomes, probabilities_bc.tolist(), strict=True):
                best = probabilities_c.index(max(probabilities_c))
                seconds = outcome.seconds - stopwatch.loading_seconds(running + outcome.seconds)
                predictions[row] = Prediction(
                    text=texts[row],
                    text_pair=text_pairs[row] if text_pairs is not None else None,
                    label=self.labels[best],
                    score=probabilities_c[best],
                    probabilities=dict(zip(self.labels, probabilities_c, strict=True)),
                    trace=replace(outcome.trace, batch_runs=runs),
                    latency_ms=(share + padded + seconds) * 1000.0,
                    truncated=tokenized[row].truncated,
                )
        return [predictions[row] for row in range(len(texts))]

    def _complete(self, policy: Policy | str | None) -> Policy:
        if policy is None or isinstance(policy, str):
            return self.policy(policy or DEFAULT_PRESET)
        return policy.with_defaults_of(self.policy())

    def classify_file(
        self,
        file: Path | str,
        *,
        columns: Columns | None = None,
        policy: Policy | str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
        skip_bad_lines: bool = False,
        input_format: str | None = None,
        reporter: Reporter = SILENT,
    ) -> AbstractContextManager[FilePredictions]:
        """Classify the texts of a file, or of standard input for `-`, WINDOW batches at a time.

        The formats are txt, csv, tsv, jsonl, json (one object a line) and parquet, all but the last also as .gz.

        >>> with model.classify_file("messages.csv") as predictions:
        ...     for index, prediction in predictions:
        ...         print(index, prediction.label)

        A file is read twice, the first time to check it: the InputError for a bad line is raised before any answer. A
        pipe can only be read once: its lines are answered as they arrive, up to the first bad one.
        columns: where the texts are; None goes by the names that public data sets use.
        input_format: one of the formats, instead of the name's ending; for standard input too.
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
            input_format=input_format,
            reporter=reporter,
        )

    def stream(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        policy: Policy | str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
    ) -> Iterator[Prediction]:
        """Predictions in the order of `texts`, only WINDOW batches of which are held in memory at a time.

        texts: any iterable, endless ones too, of texts or of (text, second text); the other arguments are
        `classify`'s. Texts of a window share batches by length; the first answer waits for one window, not for the end.
        """
        if isinstance(texts, str):
            raise InputError("stream takes several texts, not one string", hint="stream([text])")
        # Errors in the arguments are raised now, not at the first answer.
        self.classify([], policy=policy, batch_size=batch_size)
        return self._stream(iter(texts), policy, batch_size, truncate)

    def _stream(
        self, source: Iterator[str | tuple[str, str]], policy: Policy | str | None, batch_size: int, truncate: bool
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


def _load_again(folder: Path, options: dict[str, Any]) -> SmartBert:
    return SmartBert.load(folder, **options)


def as_list(texts: Iterable[str], call: str) -> list[str]:
    """The texts of any iterable; InputError for one string, and for what iterates over something else than texts."""
    if isinstance(texts, (str, bytes)):
        raise InputError(f"{call} takes several texts, not one string", hint=f"{call}([text])")
    if isinstance(texts, Mapping) or getattr(texts, "ndim", 1) != 1:  # a table iterates over the names of its columns
        raise InputError(f"{call} takes texts, not a {type(texts).__name__}", hint='give one column: table["text"]')
    if not isinstance(texts, Iterable):
        raise InputError(f"{call} takes texts, not {type(texts).__name__}", hint=f"{call}([text])")
    # numpy's strings are a kind of Python's; answers hold plain ones.
    return [str(text) if isinstance(text, str) else text for text in texts]


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

"""SmartBert: a package folder, opened, that answers texts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import softmax
from smartbert_runtime.engine.run import check_runnable, run_layout
from smartbert_runtime.engine.stopwatch import Stopwatch
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.package.policy_file import PolicyFile
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.tokenizer import Tokenizer, batches_by_length
from smartbert_runtime.trace import TOKENIZER, PartRun, Trace

DEFAULT_PRESET = "default"
DEFAULT_BATCH_SIZE = 32
WINDOW = 8


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One text's answer. `latency_ms` counts from the start of the text's batch, and its share of tokenizing.

    `truncated` says that the text was longer than the model and was cut.
    """

    text: str
    text_pair: str | None
    label: str
    score: float
    probabilities: dict[str, float]
    trace: Trace
    latency_ms: float
    truncated: bool

    @property
    def exit_layer(self) -> int:
        """The layer whose head answered, from 1."""
        return self.trace.exit_layer

    @property
    def layers_run(self) -> tuple[int, ...]:
        """Layers that were computed for this text."""
        return self.trace.layers_run

    @property
    def layers_skipped(self) -> tuple[int, ...]:
        """Layers whose gate left them out; layers after `exit_layer` are in neither."""
        return self.trace.layers_skipped

    def as_dict(self, index: int) -> dict[str, object]:
        """The line that `smartbert-infer --format json` prints."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {
            "index": index,
            "text": self.text,
            **pair,
            "label": self.label,
            "score": self.score,
            "probabilities": self.probabilities,
            "exit_layer": self.exit_layer,
            "layers_run": list(self.layers_run),
            "layers_skipped": list(self.layers_skipped),
            "latency_ms": self.latency_ms,
        }


class SmartBert:
    """Text classifier over a package folder.

    >>> model = SmartBert.load("out/")
    >>> model.classify(["You won a prize, call now!"])[0].label
    'spam'

    Any number of threads may classify with one of these at once. A forked child (as of `multiprocessing`) loads its own
    graphs at its first text, but not after `share_thread_pool`. `close`, or leaving a `with` block, lets go of them.
    """

    def __init__(self, package: Package, sessions: Sessions, tokenizer: Tokenizer, policies: PolicyFile) -> None:
        self.package, self.sessions, self.tokenizer, self.policies = package, sessions, tokenizer, policies
        self._closed = False

    def __enter__(self) -> SmartBert:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every graph; what is classified afterwards is a ConfigError. Closing twice is no fault.

        Not while another thread classifies. Working memory, which all models of a process share, stays for the next.
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

        policy: thresholds to use in place of the package's preset "default".
        batch_size: texts computed together; it changes speed, never an answer, unless the policy has a deadline:
        that is the batch's, so give 1 for a deadline of each text's own.
        truncate: false refuses texts longer than the model (InputError) in place of cutting them.
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
        # every batch, and only the tokens tell which texts are of one length and share a batch without padding.
        tokenized = self.tokenizer.tokenize(texts, text_pairs, truncate=truncate)
        a_text = (time.perf_counter() - started) / max(len(texts), 1)
        predictions: dict[int, Prediction] = {}
        for rows in batches_by_length([len(text.ids_s) for text in tokenized], batch_size):
            share = len(rows) * a_text
            tokenizing = PartRun(part=TOKENIZER, started=started, seconds=share, rows=len(rows))
            started += share
            begun = time.perf_counter()
            tokens = self.tokenizer.pad([tokenized[row] for row in rows])
            padded = time.perf_counter() - begun
            timed = Stopwatch()
            outcomes = run_layout(self.sessions, tokens, policy, since=begun - share, timed=timed)
            runs = (tokenizing, *timed.runs)
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

    def stream(
        self,
        texts: Iterable[str | tuple[str, str]],
        *,
        policy: Policy | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        truncate: bool = True,
    ) -> Iterator[Prediction]:
        """Predictions in the order of `texts`, of which only WINDOW batches are held at a time.

        texts: any iterable, endless ones too, of texts or of (text, second text); the other arguments are
        `classify`'s. Texts of a window share batches by length; the first answer waits for one window, not for the end.
        """
        if isinstance(texts, str):
            raise InputError("stream takes an iterable of texts, not one string", hint="stream([text])")
        # What the arguments themselves make wrong is told now, not at the first answer.
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
    """InputError for texts that are no strings, empty, or without their second text; `first` is the first's number."""
    if text_pairs is not None and len(text_pairs) != len(texts):
        raise InputError(f"{len(texts)} texts but {len(text_pairs)} second texts", hint="give one for each text")
    for place, rows in (("text", texts), ("second text", text_pairs or ())):
        for number, text in enumerate(rows, start=first):
            if not isinstance(text, str):
                raise InputError(f"{place} {number} is not a text but {type(text).__name__}", hint="give strings")
            if not text.strip():
                raise InputError(f"{place} {number} is empty", hint="remove it, or give it some words")

"""What is said between smartbert-bench and a contender's process: one JSON line a question, one a reply."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from smartbert_runtime.errors import BenchError
from smartbert_runtime.package.decode import decode


@dataclass(frozen=True, kw_only=True)
class Open:
    """Load the contender. `spec` is its runner's own; preload: all of it now, not at the first text."""

    spec: dict[str, object]
    preload: bool


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Answer these texts, in calls of `batch_size`, or each alone and timed alone when that is 1.

    way: which of the runner's ways to answer. wake: so many of the texts are answered before, untimed, because the
    process has just been woken and finds its caches cold.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    way: str
    batch_size: int
    wake: int


@dataclass(frozen=True, kw_only=True)
class Weigh:
    """How much memory does the process hold?"""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """load_seconds: from the files to ready, imports left out. versions: of the libraries that answer."""

    load_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One label a text; layers_run is None where all are run always; ms: one a text, or one for all of a batch run."""

    labels: tuple[str, ...]
    layers_run: tuple[int, ...] | None
    ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Resident memory now and at its highest so far, in MB (1e6 bytes); None where the platform does not tell."""

    resident_mb: float | None
    peak_mb: float | None


Question = Open | Ask | Weigh
Reply = Opened | Answered | Weight
_QUESTIONS: dict[str, type[Question]] = {kind.__name__: kind for kind in (Open, Ask, Weigh)}
_REPLIES: dict[str, type[Reply]] = {kind.__name__: kind for kind in (Opened, Answered, Weight)}


def write_question(question: Question) -> bytes:
    """One line."""
    return _line({type(question).__name__: asdict(question)})


def read_question(line: bytes) -> Question:
    """What `write_question` wrote."""
    ((kind, fields),) = json.loads(line).items()
    return decode(_QUESTIONS[kind], fields, where=kind)


def write_reply(reply: Reply | BenchError) -> bytes:
    """One line; an error travels as its message and its hint."""
    if isinstance(reply, BenchError):
        return _line({"error": {"message": str(reply), "hint": reply.hint}})
    return _line({type(reply).__name__: asdict(reply)})


def read_reply(line: bytes) -> Reply:
    """What `write_reply` wrote; raises the error that it carries."""
    ((kind, fields),) = json.loads(line).items()
    if kind == "error":
        raise BenchError(fields["message"], hint=fields["hint"])
    return decode(_REPLIES[kind], fields, where=kind)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"

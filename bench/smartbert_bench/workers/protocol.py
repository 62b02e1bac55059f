"""What smartbert-bench and a contender's process exchange: one JSON line per request, one per reply."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from smartbert_runtime.errors import BenchError
from smartbert_runtime.package.decode import decode

# The modes of a contender: with the preset's policy, or with every layer run and the last head only. Rivals know one
# mode, full depth.
POLICY, FULL_DEPTH = "policy", "full depth"


@dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """Load the contender. `spec` is its runner's own; preload: everything now, not at the first text."""

    spec: dict[str, object]
    preload: bool


@dataclass(frozen=True, kw_only=True)
class ClassifyRequest:
    """Classify these texts in calls of `batch_size`; at 1, each in its own call with its own time.

    mode: POLICY or FULL_DEPTH. warm_up: how many of the texts are classified first, untimed, because the process was
    just resumed and its caches are cold.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    mode: str
    batch_size: int
    warm_up: int


@dataclass(frozen=True, kw_only=True)
class MemoryRequest:
    """How much memory does the process hold?"""


@dataclass(frozen=True, kw_only=True)
class LoadReply:
    """load_seconds: from the files to ready, imports excluded. versions: of the libraries that the contender uses."""

    load_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ClassifyReply:
    """One label per text.

    layers_run: None where every layer always runs. ms: one per text, or one for all batches together.
    """

    labels: tuple[str, ...]
    layers_run: tuple[int, ...] | None
    ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryReply:
    """Resident memory now and its maximum so far, in MB (1e6 bytes); None where the platform does not report it."""

    resident_mb: float | None
    peak_mb: float | None


Request = LoadRequest | ClassifyRequest | MemoryRequest
Reply = LoadReply | ClassifyReply | MemoryReply
_REQUESTS: dict[str, type[Request]] = {kind.__name__: kind for kind in (LoadRequest, ClassifyRequest, MemoryRequest)}
_REPLIES: dict[str, type[Reply]] = {kind.__name__: kind for kind in (LoadReply, ClassifyReply, MemoryReply)}


def write_request(request: Request) -> bytes:
    """One line."""
    return _line({type(request).__name__: asdict(request)})


def read_request(line: bytes) -> Request:
    """The inverse of `write_request`."""
    ((kind, fields),) = json.loads(line).items()
    return decode(_REQUESTS[kind], fields, where=kind)


def write_reply(reply: Reply | BenchError) -> bytes:
    """One line; an error travels as its message and its hint."""
    if isinstance(reply, BenchError):
        return _line({"error": {"message": str(reply), "hint": reply.hint}})
    return _line({type(reply).__name__: asdict(reply)})


def read_reply(line: bytes) -> Reply:
    """The inverse of `write_reply`; raises the error that the line carries."""
    ((kind, fields),) = json.loads(line).items()
    if kind == "error":
        raise BenchError(fields["message"], hint=fields["hint"])
    return decode(_REPLIES[kind], fields, where=kind)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"

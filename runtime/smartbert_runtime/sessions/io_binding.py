"""One text at a time through buffers that stay where they are. Shape letters: s sequence, h hidden, c classes.

onnxruntime's `run` checks names, makes arrays into values and values into arrays at every call. Here inputs and outputs
are bound once for a length, each part writing where the next one reads: up to 5 % of a pass of 16 tokens
(studies.performance.speed measures both; docs/performance.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from smartbert_runtime.errors import ProviderError
from smartbert_runtime.package.open import Package

# Lengths that stay bound, 2 kB a part and length; the one that was used least lately makes room.
LENGTHS = 128


@dataclass
class _Bound:
    """One length's: arrays by the name that inputs and outputs have, and what was bound to them.

    hidden: layers read the one and write the other, in turns.
    """

    arrays: dict[str, NDArray[Any]]
    hidden: tuple[NDArray[np.float32], NDArray[np.float32]]
    parts: dict[tuple[str, bool], _Call] = field(default_factory=dict)


@dataclass(frozen=True)
class _Call:
    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding
    outputs: list[NDArray[np.float32]]


class Opener(Protocol):
    """Whatever has a session for each part: `Sessions`."""

    def open(self, part: str) -> onnxruntime.InferenceSession:
        """The part's session."""
        ...


class Lane:
    """Parts for a batch of one; what `run` gives is overwritten by later calls, and one thread at a time may call."""

    def __init__(self, package: Package, sessions: Opener) -> None:
        self._sessions = sessions
        self._components = {component.name: component for component in package.manifest.components}
        facts = package.manifest.model
        self._hidden_size = facts.hidden_size
        self._classes = len(package.manifest.labels)
        self._ids_room = {
            name: np.zeros(facts.max_length, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        self._mask_room = np.zeros(facts.max_length, np.float32)
        self._hidden_room = [np.zeros(facts.max_length * facts.hidden_size, np.float32) for _ in range(2)]
        self._lengths: dict[int, _Bound] = {}
        self._bound: _Bound | None = None

    def run(self, part: str, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The part's outputs, in the manifest's order; `hidden` and `mask` must be those of this text's last part."""
        hidden = feeds.get("hidden")
        if hidden is None:
            bound = self._of_length(feeds["input_ids"].shape[1])
            for name, values in feeds.items():
                bound.arrays[name][...] = values
            second = True  # the embeddings write the first
        else:
            assert self._bound is not None
            bound = self._bound
            second = hidden is bound.hidden[1]
            assert second or hidden is bound.hidden[0], "not this text's state"
        call = bound.parts.get((part, second)) or self._bind(bound, part, second)
        try:
            call.session.run_with_iobinding(call.binding)
        except Exception as err:  # onnxruntime's own errors share no public base class
            raise ProviderError(f"{part} failed on CPUExecutionProvider: {err}", hint="export again") from err
        return call.outputs

    def _of_length(self, length: int) -> _Bound:
        bound = self._lengths.pop(length, None)
        if bound is None:
            if len(self._lengths) == LENGTHS:
                del self._lengths[next(iter(self._lengths))]
            first, second = (
                room[: length * self._hidden_size].reshape(1, length, self._hidden_size) for room in self._hidden_room
            )
            bound = _Bound(
                arrays={
                    **{name: room[:length].reshape(1, length) for name, room in self._ids_room.items()},
                    "mask": self._mask_room[:length].reshape(1, 1, 1, length),
                    "logits": np.zeros((1, self._classes), np.float32),
                    "skip_logit": np.zeros(1, np.float32),
                },
                hidden=(first, second),
            )
        self._bound = self._lengths[length] = bound
        return bound

    def _bind(self, bound: _Bound, part: str, second: bool) -> _Call:
        """second: the part reads the second of the two states and writes the first."""
        component = self._components[part]
        reads, writes = bound.hidden[::-1] if second else bound.hidden
        read = bound.arrays | {"hidden": reads}
        written = bound.arrays | {"hidden": writes, "hidden_next": writes}
        session = self._sessions.open(part)
        binding = session.io_binding()
        for spec in component.inputs:
            array = read[spec.name]
            binding.bind_input(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for spec in component.outputs:
            array = written[spec.name]
            binding.bind_output(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        outputs = [written[spec.name] for spec in component.outputs]
        call = bound.parts[part, second] = _Call(session, binding, outputs)
        return call

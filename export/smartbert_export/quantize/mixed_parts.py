"""The parts of a trial: some quantized, all others fp32, each graph opened at its first run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from smartbert.configuration import SmartBertConfig
from smartbert_export.parts.signatures import Part, signature
from smartbert_runtime.sessions.fixed_shape import run_fixed
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import available_threads, session_options


class FolderParts:
    """`engine.Parts` over a folder of graphs NAME.onnx, made for `fixed_shape` if that is given."""

    def __init__(
        self, folder: Path, parts: Collection[Part], config: SmartBertConfig, fixed_shape: tuple[int, int] | None
    ) -> None:
        self._folder, self._config, self._fixed_shape = folder, config, fixed_shape
        self._kinds = {part.name: part.kind for part in parts}
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs."""
        if part not in self._sessions:
            # No arena: a session's arena keeps what its largest batch needed.
            options = session_options(available_threads(), arena=False)
            self._sessions[part] = onnxruntime.InferenceSession(
                str(self._folder / f"{part}.onnx"), sess_options=options, providers=[CPU]
            )
        run = partial(self._sessions[part].run, None)
        if self._fixed_shape is None:
            outputs: list[NDArray[np.float32]] = run(feeds)
            return outputs
        inputs, results = signature(self._config, self._kinds[part])
        return run_fixed(run, feeds, inputs=inputs, outputs=results, shape=self._fixed_shape)

    def close(self, part: str) -> None:
        """Release a part that is not run again."""
        self._sessions.pop(part, None)


class MixedParts:
    """`engine.Parts`: each part named in `quantized` from the folder given for it, all others from the fp32 one."""

    def __init__(self, fp32: FolderParts, quantized: Mapping[str, FolderParts] = MappingProxyType({})) -> None:
        self._fp32, self._quantized = fp32, quantized

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs."""
        return self._quantized.get(part, self._fp32).run(part, feeds)

"""Graphs as bytes; a weight that an earlier file of the package holds is not stored twice but borrowed from it.

An ONNX weight may lie in another file, at an offset: also inside another graph, where protobuf keeps a tensor's bytes
in one piece. onnxruntime reads it so by path in every language (offsets need no alignment, seen with 1.31.1), and from
memory when it is handed over as an external initializer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import onnx
from onnx import helper

from smartbert_runtime.manifest import Borrowed, FileEntry

# A reference takes about a hundred bytes itself.
SMALLEST_BYTES = 1024


class GraphWriter:
    """Writes graphs into one folder of the package and remembers which weights lie where."""

    def __init__(self, staging: Path, *, share: bool) -> None:
        self.staging, self._share = staging, share
        self._places: dict[bytes, tuple[str, int]] = {}

    def write(self, file: str, source: Path) -> FileEntry:
        """Write the graph in `source` to the package's `file`: the same bytes where nothing is borrowed."""
        if not self._share:
            return write_file(self.staging, file, source.read_bytes())
        model = onnx.load(source)
        borrowed = self._borrow(model)
        content = model.SerializeToString(deterministic=True) if borrowed else source.read_bytes()
        self._remember(file, model, content)
        return write_file(self.staging, file, content, tuple(borrowed))

    def _borrow(self, model: onnx.ModelProto) -> list[Borrowed]:
        borrowed = []
        for tensor in model.graph.initializer:
            raw = tensor.raw_data  # a copy at each call
            place = self._places.get(_key(tensor, raw)) if len(raw) >= SMALLEST_BYTES else None
            if place is None:
                continue
            file, offset = place
            weight = Borrowed(
                name=tensor.name,
                file=file,
                offset=offset,
                bytes=len(raw),
                dtype=str(helper.tensor_dtype_to_np_dtype(tensor.data_type)),
                dims=tuple(tensor.dims),
            )
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (
                ("location", PurePosixPath(file).name),
                ("offset", str(offset)),
                ("length", str(weight.bytes)),
            ):
                tensor.external_data.add(key=key, value=value)
            borrowed.append(weight)
        return borrowed

    def _remember(self, file: str, model: onnx.ModelProto, content: bytes) -> None:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) >= SMALLEST_BYTES:
                self._places.setdefault(_key(tensor, raw), (file, content.index(raw)))


def _key(tensor: onnx.TensorProto, raw: bytes) -> bytes:
    return repr((tensor.data_type, tuple(tensor.dims))).encode() + hashlib.sha256(raw).digest()


def write_file(staging: Path, file: str, content: bytes, borrowed: tuple[Borrowed, ...] = ()) -> FileEntry:
    """Write one file of the package; the entry that vouches for it."""
    (staging / file).write_bytes(content)
    return FileEntry(file=file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), borrowed=borrowed)

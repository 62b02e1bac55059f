"""Graphs as bytes; a weight that an earlier file of the package holds is not stored twice but borrowed from it.

An ONNX weight may lie in another file, at an offset: also inside another graph, where protobuf keeps a tensor's bytes
in one piece. onnxruntime reads it so by path in every language (offsets need no alignment, seen with 1.31.1), and from
memory when it is handed over as an external initializer.
"""

from __future__ import annotations

import hashlib
import mmap
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import onnx
from onnx import helper

from smartbert_export.wire import Weight, weights
from smartbert_runtime.package.manifest import Borrowed, FileEntry

# A reference takes about a hundred bytes itself.
SMALLEST_BYTES = 1024


class GraphWriter:
    """Writes graphs into one folder of the package and remembers which weights lie where."""

    def __init__(self, staging: Path, *, share: bool) -> None:
        self.staging, self._share = staging, share
        self._places: dict[bytes, tuple[str, int]] = {}

    def write(self, file: str, source: Path) -> FileEntry:
        """Write the graph in `source` to the package's `file`: the same bytes where nothing is borrowed."""
        borrowed = self._borrow(source) if self._share else ()
        if borrowed:
            entry = write_file(self.staging, file, _without(source, borrowed), borrowed)
        else:
            shutil.copyfile(source, self.staging / file)
            entry = FileEntry(file=file, sha256=sha256_of(source), bytes=source.stat().st_size)
        if self._share:
            for key, weight in _large_weights(self.staging / file):
                self._places.setdefault(key, (file, weight.offset))
        return entry

    def _borrow(self, source: Path) -> tuple[Borrowed, ...]:
        """The weights of `source` that a file written before has, and where."""
        return tuple(
            Borrowed(
                name=weight.name,
                file=self._places[key][0],
                offset=self._places[key][1],
                bytes=weight.bytes,
                dtype=str(helper.tensor_dtype_to_np_dtype(weight.data_type)),
                dims=weight.dims,
            )
            for key, weight in _large_weights(source)
            if key in self._places
        )


def _large_weights(file: Path) -> Iterator[tuple[bytes, Weight]]:
    """Each weight worth a reference, and what only an equal one has: type, dimensions and a digest of its bytes."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for weight in weights(content):
            if weight.bytes >= SMALLEST_BYTES:
                with memoryview(content) as view, view[weight.offset : weight.offset + weight.bytes] as raw:
                    digest = hashlib.sha256(raw).digest()
                yield repr((weight.data_type, weight.dims)).encode() + digest, weight


def _without(source: Path, borrowed: Sequence[Borrowed]) -> bytes:
    """The graph with references in the place of the borrowed weights."""
    model = onnx.load(source)
    named = {weight.name: weight for weight in borrowed}
    for tensor in model.graph.initializer:
        weight = named.get(tensor.name)
        if weight is None:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (
            ("location", PurePosixPath(weight.file).name),
            ("offset", str(weight.offset)),
            ("length", str(weight.bytes)),
        ):
            tensor.external_data.add(key=key, value=value)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def write_file(staging: Path, file: str, content: bytes, borrowed: tuple[Borrowed, ...] = ()) -> FileEntry:
    """Write one file of the package; the entry that vouches for it."""
    (staging / file).write_bytes(content)
    return FileEntry(file=file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), borrowed=borrowed)


def sha256_of(*files: Path) -> str:
    """One digest of the files one after another, read piece by piece."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()

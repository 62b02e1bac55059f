"""Convert graphs to onnxruntime's own file format, and list the operators that a reduced build needs for them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from smartbert_export.library_output import own_logging, quiet_logger


def convert_folder(graphs: Path, output: Path) -> Path:
    """Write each NAME.onnx of `graphs` as `output`/NAME.ort; returns the list of operators for a reduced build."""
    with own_logging():
        from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    output.mkdir()
    # It reports each file on stdout, and the list in its log.
    with contextlib.redirect_stdout(io.StringIO()), quiet_logger("ort_format_model.utils"):
        convert_onnx_models_to_ort(
            graphs, output, optimization_styles=[OptimizationStyle.Fixed], enable_type_reduction=True
        )
    (config,) = output.glob("*.config")
    return config

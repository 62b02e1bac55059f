"""onnxruntime's telemetry, switched off before onnxruntime is imported; importing this module does it.

Official builds since 1.29 write files below the home folder and open sockets some seconds after they were imported,
unless ORT_DISABLE_TELEMETRY=1 stands in the environment by then. What the owner of the process has set is kept, and the
processes it starts inherit it.
"""

from __future__ import annotations

import os
import sys
import warnings

VARIABLE = "ORT_DISABLE_TELEMETRY"


def switch_off() -> None:
    """Set the variable unless it is set; a warning where onnxruntime was imported without it, which is too late."""
    if VARIABLE in os.environ:
        return
    if "onnxruntime" in sys.modules:
        warnings.warn(
            f"onnxruntime was imported before smartbert_runtime, without {VARIABLE}=1: its telemetry may be on; set "
            "the variable, or import smartbert_runtime first",
            RuntimeWarning,
            stacklevel=2,
        )
    os.environ[VARIABLE] = "1"


switch_off()

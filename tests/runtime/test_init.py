"""The package's surface: what `import smartbert_runtime` offers, and what it must never load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import smartbert_runtime
from smartbert_runtime import errors

# A device has none of them; loading one would cost seconds and hundreds of megabytes.
HEAVY = ("torch", "transformers", "onnx", "datasets", "accelerate", "safetensors", "smartbert", "smartbert_export")


def test_all_is_sorted_and_complete() -> None:
    assert smartbert_runtime.__all__ == sorted(smartbert_runtime.__all__)
    public = {
        name
        for name, value in vars(smartbert_runtime).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(smartbert_runtime.__all__) == public


def test_every_error_can_be_caught_by_its_name_from_the_package() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds <= set(smartbert_runtime.__all__)


def test_a_fresh_interpreter_classifies_without_any_training_library(package_dir: Path) -> None:
    program = (
        "import sys\n"
        "import smartbert_runtime\n"
        "model = smartbert_runtime.SmartBert.load(sys.argv[1])\n"
        "print(model.classify(['Down, down, down.'])[0].label)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(package_dir)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["odd", "[]"]


def test_no_module_of_the_runtime_loads_a_training_library() -> None:
    folder = Path(smartbert_runtime.__file__).parent
    modules = sorted(
        ".".join(("smartbert_runtime", *file.relative_to(folder).with_suffix("").parts))
        for file in folder.rglob("*.py")
        if file.stem != "__init__"
    )
    assert "smartbert_runtime.parity.verify" in modules
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"

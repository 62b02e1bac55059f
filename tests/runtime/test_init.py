"""The public surface: what `import smartbert_runtime` offers, and what it must never load."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import smartbert_runtime
from smartbert_runtime import errors

# A device has none of them; loading one would cost seconds and hundreds of megabytes.
HEAVY = ("torch", "transformers", "onnx", "datasets", "accelerate", "safetensors", "smartbert", "smartbert_export")


def test_all_is_complete() -> None:
    assert smartbert_runtime.__all__ == sorted(smartbert_runtime.__all__)
    public = {
        name
        for name, value in vars(smartbert_runtime).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(smartbert_runtime.__all__) == {*public, "__version__"}


def test_version_is_installed_one() -> None:
    assert smartbert_runtime.__version__ == importlib.metadata.version("smartbert")
    assert not hasattr(smartbert_runtime, "__author__")


def test_version_is_looked_up_late() -> None:
    program = (
        "import sys\nimport smartbert_runtime\n"
        "before = 'importlib.metadata' in sys.modules\n"
        "print(before, smartbert_runtime.__version__ != '', 'importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False True True\n"


def test_errors_are_public() -> None:
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds <= set(smartbert_runtime.__all__)


def test_classify_loads_no_torch(package_dir: Path) -> None:
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


def test_no_module_loads_torch() -> None:
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

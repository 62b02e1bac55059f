"""Every error this project raises on purpose: what happened, and a hint on what to do.

SmartBertError            caught by the command line: `error: ...`, `hint: ...`, exit code 1
├── ConfigError           a setting that makes no sense
├── InputError            a text, a file of texts or a data set that cannot be used
├── TrainingError         a training run that cannot continue
├── ManifestError         a package folder that is missing, incomplete or invalid
│   └── IntegrityError    a package file that differs from what was exported
├── ProviderError         an execution provider that is missing or fails
├── ExportError           a checkpoint that cannot be cut into parts
├── ParityError           answers that differ from PyTorch's (exit code 3; carries the report)
├── BenchError            a contender that died or could not answer
└── MissingExtraError     a command whose optional packages are not installed
"""

from __future__ import annotations


class SmartBertError(Exception):
    """What happened (`str(error)`) and what to do about it (`error.hint`)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(SmartBertError):
    """A setting out of its range, or two that contradict each other."""


class InputError(SmartBertError):
    """Texts, files or data sets that cannot be used as they are."""


class TrainingError(SmartBertError):
    """Training cannot continue; what was saved is kept."""


class ManifestError(SmartBertError):
    """A package folder that is missing, incomplete, or written to another schema."""


class IntegrityError(ManifestError):
    """A file in the package folder differs from what was exported."""


class ProviderError(SmartBertError):
    """An onnxruntime execution provider is missing or could not be used."""


class ExportError(SmartBertError):
    """A checkpoint that cannot be turned into a package folder."""


class BenchError(SmartBertError):
    """A contender of smartbert-bench died, or failed at its task."""


class ParityError(SmartBertError):
    """The package answers differently from PyTorch; `report` holds every comparison made."""

    exit_code = 3

    def __init__(self, message: str, *, report: object, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report


class MissingExtraError(SmartBertError):
    """The command needs an extra that is not installed."""

    def __init__(self, command: str, extra: str, missing: str) -> None:
        super().__init__(
            f"{command} needs the package {missing!r}, which is not installed",
            hint=f"pip install 'smartbert[{extra}]'",
        )

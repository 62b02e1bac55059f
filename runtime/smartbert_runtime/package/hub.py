"""Packages by name: a folder, or a repository on the Hugging Face hub, which `huggingface_hub` downloads and caches."""

from __future__ import annotations

from pathlib import Path

from smartbert_runtime.errors import InputError, MissingExtraError


def local_folder(name_or_folder: Path | str, revision: str | None = None) -> Path:
    """The folder itself, or that of the repository's snapshot; see `SmartBert.from_pretrained` for the errors."""
    folder = Path(name_or_folder)
    if folder.is_dir() or isinstance(name_or_folder, Path):
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as err:
        raise MissingExtraError(f"loading {name_or_folder} from the hub", "hub", "huggingface_hub") from err
    try:
        return Path(snapshot_download(name_or_folder, revision=revision))
    except Exception as err:  # the library and the network raise many kinds
        raise InputError(
            f"{name_or_folder!r} is no folder, and the hub does not give it: {str(err).strip().splitlines()[0]}",
            hint="check the name and the network; without a network, only what is in the hub's cache can be loaded",
        ) from err

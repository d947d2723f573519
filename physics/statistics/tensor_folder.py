"""A published folder of one safetensors file, its settings in the manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from microstructures import CheckpointError
from microstructures.publishing import open_verified, publish_folder


def publish_tensors(
    folder: str | Path, tensors: Mapping[str, Tensor], *, kind: str, about: dict[str, Any]
) -> Path:
    """Write `KIND.safetensors` and a manifest, whole or not at all.

    Raises:
        DataError: The folder cannot be written, or holds something that is not ours.
    """
    content = bytes_of({name: tensor.contiguous() for name, tensor in tensors.items()})

    def write(partial: Path) -> None:
        (partial / f"{kind}.safetensors").write_bytes(content)

    return publish_folder(folder, write, kind=kind, about=about)


def open_tensors(folder: str | Path, *, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `publish_tensors` wrote: settings and tensors.

    Raises:
        CheckpointError: It is no such folder, or incomplete, altered or damaged.
    """
    about = open_verified(folder, kind=kind)
    try:
        return about, tensors_of((Path(folder) / f"{kind}.safetensors").read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} holds no tensors of a {kind}: {error}") from error

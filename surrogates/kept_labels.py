"""The solver's labels on disk: solved once, read after that, never those of other cells."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from microstructures import DataError
from microstructures.publishing import MANIFEST, open_verified, publish_folder

FILE = "labels.safetensors"


def kept_labels(
    folder: Path,
    solve: Callable[[], Mapping[str, Tensor]],
    *,
    kind: str,
    identity: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return the tensors of `folder`, or those of `solve`, which are then kept there.

    Args:
        folder: Where they lie.
        solve: Returns them by name.
        kind: Of the folder.
        identity: What cells, materials and solver settings they belong to.

    Raises:
        DataError: `folder` holds the labels of other cells or materials.
        CheckpointError: `folder` was damaged.
    """
    about: dict[str, Any] = json.loads(json.dumps(identity))
    if (folder / MANIFEST).exists():
        if open_verified(folder, kind=kind) != about:
            raise DataError(
                f"expected {folder} to hold the labels of these cells and materials, found others; "
                "choose another output folder"
            )
        return load_file(folder / FILE)
    tensors = {name: tensor.contiguous() for name, tensor in solve().items()}
    publish_folder(
        folder, lambda partial: save_file(tensors, partial / FILE), kind=kind, about=about
    )
    return tensors

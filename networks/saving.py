"""Saved models: a folder of config.json, model.safetensors and card.md, hashed and atomic."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from microstructures import CheckpointError
from microstructures.publishing import open_verified, publish_folder

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "card.md"


def save_model(
    folder: str | Path,
    *,
    name: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    card: str,
    half: bool = False,
) -> Path:
    """Publish a model folder.

    Args:
        folder: Where to.
        name: The model's class, checked on loading.
        config: Constructor arguments as plain data.
        state: Weights.
        card: What the model is, was trained on and reaches (Markdown).
        half: Store weights as float16, half the megabytes; they load as float32.
    """
    tensors = {key: _stored(value, half) for key, value in state.items()}

    def write(partial: Path) -> None:
        (partial / CONFIG).write_text(json.dumps(dict(config), indent=2, allow_nan=False) + "\n")
        save_file(tensors, partial / WEIGHTS)
        (partial / CARD).write_text(card)

    return publish_folder(folder, write, kind="model", about={"class": name})


def load_model(folder: str | Path, *, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the float32 weights of a saved model.

    Raises:
        CheckpointError: The folder is no such model, is incomplete, was altered, or its weights
            are not numbers.
    """
    folder = Path(folder)
    about = open_verified(folder, kind="model")
    if about.get("class") != name:
        raise CheckpointError(
            f"expected a {name} in {folder}, found a {about.get('class')}; choose another folder"
        )
    try:
        config = json.loads((folder / CONFIG).read_text())
        state = load_file(folder / WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"expected a config in JSON and weights in safetensors in {folder}, got {error}; make "
            "the folder again"
        ) from error
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"expected finite weights in {folder}, found NaN or infinity in {broken[0]}; train the "
            "model again"
        )
    return config, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def resolve_model(folder_or_name: str | Path, shipped: Path) -> Path:
    """Return the folder of a saved model, or of shipped weights by name.

    Raises:
        CheckpointError: Neither exists; the message lists what is shipped.
    """
    folder = Path(folder_or_name)
    if folder.is_dir():
        return folder
    named = shipped / str(folder_or_name)
    if folder.name == str(folder_or_name) and named.is_dir():
        return named
    known = ", ".join(sorted(p.name for p in shipped.glob("*") if p.is_dir())) or "none"
    raise CheckpointError(
        f"expected a model folder or the name of shipped weights ({known}), got {folder_or_name}"
    )


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(torch.float16) if half and value.is_floating_point() else value

"""Saved models: round trip, half precision, any altered byte refused."""

import pytest
import torch

from microstructures import CheckpointError
from networks import load_model, save_model
from networks.saving import resolve_model

STATE = {"weight": torch.randn(3, 4), "count": torch.tensor([3])}


def save(folder, **change):
    return save_model(
        folder, name="Toy", config={"widths": [1, 2]}, state=STATE, card="toy", **change
    )


def test_round_trip(tmp_path):
    config, state = load_model(save(tmp_path / "m"), name="Toy")
    assert config == {"widths": [1, 2]}
    assert all(torch.equal(state[k], STATE[k]) for k in STATE)


def test_half_precision_loads_as_float32(tmp_path):
    _, state = load_model(save(tmp_path / "m", half=True), name="Toy")
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["weight"], STATE["weight"].half().float())


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "card.md"])
def test_a_flipped_byte_is_refused(tmp_path, name):
    folder = save(tmp_path / "m")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=name):
        load_model(folder, name="Toy")


def test_another_class_and_unknown_names_are_refused(tmp_path):
    folder = save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="expected a Other"):
        load_model(folder, name="Other")
    with pytest.raises(CheckpointError, match="shipped weights"):
        resolve_model("no-such-model", tmp_path)
    with pytest.raises(CheckpointError):
        resolve_model("../m", tmp_path / "m")
    assert resolve_model("m", tmp_path) == tmp_path / "m"

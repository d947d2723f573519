"""Saving and loading a net together with its distance from the training set."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from networks.saving import load_model, resolve_model, save_model
from surrogates.familiarity import Familiarity

SHIPPED = Path(__file__).parent / "weights"


class SavedNet(NamedTuple):
    """A net, its familiarity with cells, and whatever else its config holds."""

    net: Any
    familiarity: Familiarity
    config: Mapping[str, Any]


def save_net(
    folder: str | Path,
    saved: SavedNet,
    *,
    name: str,
    card: str,
    half: bool,
) -> Path:
    """Save a net (whose `config` makes it anew), its familiarity, `saved.config` and a card."""
    familiarity = saved.familiarity
    config = {
        **saved.config,
        "net": dict(saved.net.config),
        "familiarity": {
            "samples": len(familiarity.known),
            "shape": [int(side) for side in familiarity.shape.tolist()],
        },
    }
    parts = {"net": saved.net, "familiarity": familiarity}
    state = {f"{p}.{k}": v for p, part in parts.items() for k, v in part.state_dict().items()}
    return save_model(folder, name=name, config=config, state=state, card=card, half=half)


def load_net(
    folder_or_name: str | Path, net_of: Callable[[Mapping[str, Any]], nn.Module], *, name: str
) -> SavedNet:
    """Load what `save_net` saved, from a folder or by the name of shipped weights.

    Raises:
        CheckpointError: No such model, another kind of model, or its files were altered.
    """
    config, state = load_model(resolve_model(folder_or_name, SHIPPED), name=name)
    about = config["familiarity"]
    familiarity = Familiarity(about["samples"], tuple(about["shape"]))
    net = net_of(config["net"])
    for prefix, part in {"net.": net, "familiarity.": familiarity}.items():
        part.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
    return SavedNet(net, familiarity, config)

"""Fine-tuning: a net starts from saved weights of its family, wherever name and shape agree."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from generators.generator import SHIPPED, ConditionalGenerator
from generators.phase_net import PhaseNet
from microstructures import CheckpointError
from microstructures.dataset import MicrostructureDataset
from microstructures.publishing import folder_digest
from networks.saving import load_model, resolve_model

PROCESS = "process."  # tensors of the embedding of process parameters
LEAST_SHARE = 0.5  # of the net's numbers: with less it is another net
SHAPING = ("widths", "blocks", "rungs", "noise_channels", "encoder_widths", "features")


@dataclass(frozen=True)
class InitialWeights:
    """Saved weights to start from.

    Args:
        name: Shipped name or folder.
        digest: SHA-256 of the saved model.
        config: Constructor arguments of its net.
        state: Its weights.
    """

    name: str
    digest: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @classmethod
    def load(cls, name: str | Path, *, family: str, dim: int) -> "InitialWeights":
        """Load a saved model or shipped weights of a family, for nets of `dim` axes.

        Raises:
            CheckpointError: No such model, another family or dimension, or altered files.
        """
        folder = resolve_model(name, SHIPPED)
        config, state = load_model(folder, name=family)
        net = config["net"] if "net" in config else config["denoiser"]
        if len(net["periodic"]) != dim:
            raise CheckpointError(
                f"expected weights of a {dim}-D net to start from, got {name} of "
                f"{len(net['periodic'])}-D; choose others, or train from scratch"
            )
        return cls(str(name), folder_digest(folder), net, state)

    def copy_to(self, net: PhaseNet) -> "TakenOver":
        """Copy every tensor whose name and shape the net has too; return which they are.

        What depends on the number of phases stays as it was drawn, and so does the embedding of
        the process unless its parameters are the same.

        Raises:
            CheckpointError: Less than half of the net is covered: its widths differ.
        """
        own = net.state_dict()
        same_process = json.dumps(self.config["space"]) == json.dumps(net.config["space"])
        taken = {
            key: value
            for key, value in self.state.items()
            if key in own
            and own[key].shape == value.shape
            and (same_process or not key.startswith(PROCESS))
        }
        numbers = sum(v.numel() for v in taken.values())
        total = sum(v.numel() for v in own.values())
        if numbers < LEAST_SHARE * total:
            differ = [
                f"{key} {self.config[key]}, not {net.config[key]}"
                for key in SHAPING
                if key in self.config and self.config[key] != net.config.get(key)
            ]
            raise CheckpointError(
                f"expected the net of {self.name} ({'; '.join(differ) or 'another net'}), whose "
                f"weights fit {numbers} of these {total} numbers; set the same widths and features"
            )
        net.load_state_dict({**own, **taken})
        fresh = tuple(key for key in own if key not in taken)
        return TakenOver(self.name, self.digest, tuple(taken), fresh, numbers, total)


def initial_weights(
    name: str | None, family: type[ConditionalGenerator], dataset: MicrostructureDataset
) -> InitialWeights | None:
    """Return the weights to start a training from, None without a name.

    Raises:
        CheckpointError: No such model, another family or dimension, or altered files.
    """
    if name is None:
        return None
    return InitialWeights.load(name, family=family.__name__, dim=len(dataset.periodic))


@dataclass(frozen=True)
class TakenOver:
    """Which tensors of a net come from saved weights.

    Args:
        source: Shipped name or folder of the saved weights.
        source_sha256: Their digest.
        taken: Tensors that were copied.
        fresh: Tensors drawn at random.
        numbers: Weights in the copied tensors.
        total: Weights of the net.
    """

    source: str
    source_sha256: str
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    numbers: int
    total: int

    def __str__(self) -> str:
        return (
            f"started from {self.source}: {len(self.taken)} of {len(self.taken) + len(self.fresh)} "
            f"tensors taken over ({self.numbers} of {self.total} weights); fresh: "
            + (", ".join(self.fresh) or "none")
        )

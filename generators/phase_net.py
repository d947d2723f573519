"""What every generator's net offers: conditions from process and code, fractions, codes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from networks.conditioning import ProcessEmbedding


class PhaseNet(nn.Module, ABC):
    """A net that makes phases of a process point and a standard code z ~ N(0, I).

    Attributes:
        config: Constructor arguments as plain data, the process space as `space.to_json()` and
            one `periodic` flag per axis among them.
        n_phases: Number of phases.
        latent_dim: Length of the code.
        dim: Number of spatial axes.
        size_multiple: Every side of an image is a multiple of this.
        process: Embedding of the process parameters, null tokens for unknown ones.
    """

    config: Mapping[str, Any]
    n_phases: int
    latent_dim: int
    dim: int
    size_multiple: int
    process: ProcessEmbedding

    @abstractmethod
    def condition(
        self, process: Float[Tensor, "batch features"], code: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch features"]:
        """Return the condition vector of an embedded process and a standard code."""

    @abstractmethod
    def fractions(
        self, condition: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch phase"], Float[Tensor, "batch phase"]]:
        """Return expected volume fractions (they sum to 1) and the log of their spread."""

    @abstractmethod
    def standard_code(
        self, x: Float[Tensor, "batch phase *space"], process: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch latent"]:
        """Return the mean code of clean images in ±1, standard normal over the data."""


def signed_indicators(phases: torch.Tensor, n_phases: int) -> Float[Tensor, "batch phase *space"]:
    """Return one-hot phases as ±1."""
    return 2 * F.one_hot(phases.long(), n_phases).movedim(-1, 1).float() - 1

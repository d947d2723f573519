"""PropertySurrogate: the effective matrix of a cell by one pooled net evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics.materials import IsotropicElastic, check_phases
from surrogates.familiarity import Familiarity
from surrogates.pooled_net import PooledNet, ShareEstimate
from surrogates.quantities import Quantity, local_moduli, scaled
from surrogates.saved_nets import SavedNet, load_net, save_net
from surrogates.thermal_expansion import ExpansionBracket, check_levin, expansion_bracket

CHUNK_VOXELS = 2**16  # voxels predicted at once: features stay in the cache


@dataclass(frozen=True)
class PropertyPrediction:
    """What a property surrogate says of some cells, in the unit of the materials.

    `value` lies between Reuss's and Voigt's matrices in the Loewner order, whatever the weights.
    `lower` and `upper` hold each entry with the share of confidence that the model was calibrated
    for (0.9): an interval of level "statistical", right for cells like those of training and for
    no others. `distance` is at most 1 for 95 % of the training cells (see `Familiarity`).
    """

    value: Float[Tensor, "batch n n"]
    lower: Float[Tensor, "batch n n"]
    upper: Float[Tensor, "batch n n"]
    distance: Float[Tensor, " batch"]
    level: str = "statistical"


class PropertySurrogate:
    """Predict the effective stiffness or conductivity of periodic cells of isotropic phases.

    An ensemble of `PooledNet` members; the interval comes from their own spread and from their
    disagreement (Lakshminarayanan et al. 2017), scaled on held-out cells so that it covers 90 %
    of them (split conformal prediction; Lei et al. 2018).

    Limits: the interval is no bound. Sides must be multiples of the net's `size_multiple`; see the
    model's card for sizes and contrasts of training, and `distance` for how far a cell is from it.

    >>> model = PropertySurrogate.from_pretrained("stiffness-2d")  # doctest: +SKIP
    >>> found = model.predict(phases, [soft, stiff])  # doctest: +SKIP
    """

    def __init__(
        self, net: PooledNet, familiarity: Familiarity, margins: Float[Tensor, "n n"]
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.familiarity = familiarity
        self.margins = margins.double()

    @property
    def quantity(self) -> Quantity:
        """What is predicted."""
        return self.net.quantity

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells of a shape that `predict` cannot take.

        Raises:
            DataError: The dimension differs or a side is no multiple of the net's.
        """
        self.net.check_shape(shape)

    @torch.no_grad()
    def predict(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence
    ) -> PropertyPrediction:
        """Predict effective matrices.

        Args:
            phases: Labels `(batch, *space)` or fractions `(batch, phase, *space)`.
            materials: One per phase: `IsotropicElastic` for stiffness (values in GPa), numbers
                for conductivity.

        Raises:
            DataError: Phases or materials do not fit.
            ConvergenceError: The net's answer is not finite.
        """
        shape = check_phases(phases, len(materials))
        self.check_shape(shape)
        values = self.quantity.phase_moduli(materials, len(shape)).unsqueeze(0)
        size = max(1, CHUNK_VOXELS // phases[0].numel())
        return _joined([self._predict(part, values) for part in phases.split(size)])

    def expansion(
        self,
        phases: Shaped[Tensor, "batch *dims"],
        materials: Sequence[IsotropicElastic],
        expansions_per_k: Sequence[float],
    ) -> ExpansionBracket:
        """Predict the effective thermal expansion of two-phase cells in 1/K, Mandel notation.

        By Levin's relation from the predicted stiffness; the interval is carried over from that of
        the stiffness (`expansion_bracket`).

        Args:
            phases: As `predict`.
            materials: Two solid phases of different compressibility.
            expansions_per_k: Their linear thermal expansions.

        Raises:
            DataError: The surrogate predicts another quantity, or phases or materials do not fit;
                with more than two phases use `effective_stiffness(..., eigenstrain=...)`.
        """
        if self.quantity.name != "stiffness":
            raise DataError(
                f"expected a surrogate of the stiffness, got one of the {self.quantity.name}; "
                "thermal expansion follows from the stiffness"
            )
        check_levin(materials, expansions_per_k, dim=self.net.dim)
        found = self.predict(phases, materials)
        return expansion_bracket(
            found.value,
            found.lower,
            found.upper,
            materials,
            expansions_per_k,
            level="statistical",
        )

    def estimate(
        self, moduli: Float[Tensor, "batch modulus *space"]
    ) -> tuple[Float[Tensor, "batch n n"], Float[Tensor, "batch n n"]]:
        """Return matrix and standard deviation of each entry of scaled moduli, differentiable."""
        return combined(self.net(moduli))

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        saved = SavedNet(self.net, self.familiarity, {"margins": self.margins.tolist()})
        return save_net(folder, saved, name=type(self).__name__, card=card, half=half)

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path) -> "PropertySurrogate":
        """Load a saved model, or shipped weights by name.

        Raises:
            CheckpointError: No such model, or its files were altered.
        """
        saved = load_net(folder_or_name, lambda config: PooledNet(**config), name=cls.__name__)
        margins = torch.tensor(saved.config["margins"], dtype=torch.float64)
        return cls(saved.net, saved.familiarity, margins)

    def _predict(self, phases: Tensor, values: Tensor) -> PropertyPrediction:
        moduli, unit = scaled(local_moduli(phases, values))
        value, spread = self.estimate(moduli.float())
        if not torch.isfinite(value).all():
            raise ConvergenceError(
                "expected finite effective matrices from the surrogate, got NaN or infinity; "
                "use the solver for these materials"
            )
        wide = unit.view(-1, 1, 1).double()
        value, half = value * wide, self.margins * spread * wide
        distance = self.familiarity(moduli.float())
        return PropertyPrediction(value, value - half, value + half, distance)


def combined(
    estimates: Sequence[ShareEstimate],
) -> tuple[Float[Tensor, "batch n n"], Float[Tensor, "batch n n"]]:
    """Return the ensemble's matrix and the standard deviation of its entries.

    The variance of a share is the members' mean variance plus the variance of their means; the
    entries of a share are taken to be independent on the way to the matrix.
    """
    means = torch.stack([estimate.mean for estimate in estimates])
    variance = torch.stack([(2 * e.log_spread).exp() for e in estimates]).mean(0)
    variance = variance + means.var(0, correction=0)
    interval = estimates[0].interval
    square = interval.root.square()
    return interval.at(means.mean(0)), (square @ variance @ square.mT).sqrt()


def _joined(parts: list[PropertyPrediction]) -> PropertyPrediction:
    return PropertyPrediction(
        value=torch.cat([part.value for part in parts]),
        lower=torch.cat([part.lower for part in parts]),
        upper=torch.cat([part.upper for part in parts]),
        distance=torch.cat([part.distance for part in parts]),
    )

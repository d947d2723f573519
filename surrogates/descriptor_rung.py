"""The lowest rung of the ladder: the descriptor model with a calibrated interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.materials import check_phases
from surrogates.descriptor_model import DescriptorModel
from surrogates.familiarity import Familiarity
from surrogates.labels import LabelledCells
from surrogates.ladder import Bracketed, Level
from surrogates.quantities import local_moduli, scaled


@dataclass(frozen=True)
class DescriptorRung:
    """A descriptor model whose errors on held-out cells scale its interval.

    `margins` bound |error| of each entry over sqrt(Cii Cjj) for 90 % of them (split conformal
    prediction; Lei et al. 2018). Cells unlike its training set (distance above 1) are not
    trusted.
    """

    model: DescriptorModel
    familiarity: Familiarity
    margins: Float[Tensor, "n n"]
    name: str = "descriptor ridge"
    level: Level = "statistical"

    @classmethod
    def fit(
        cls,
        labels: LabelledCells,
        held_out: LabelledCells,
        *,
        steps: int = 0,
        confidence: float = 0.9,
    ) -> "DescriptorRung":
        """Fit to labelled cells and calibrate on others (`steps`: see `DescriptorModel.fit`).

        Raises:
            DataError: Too few cells for the model or for that confidence.
        """
        place = math.ceil(confidence * (len(held_out) + 1)) - 1
        if place >= len(held_out):
            raise DataError(
                f"expected more held-out cells to calibrate an interval of {confidence:g}, got "
                f"{len(held_out)}"
            )
        model = DescriptorModel.fit(labels, steps=steps)
        found = model.predict(held_out)
        errors = (found - held_out.effective).abs() / _sizes(found)
        return cls(model, labels.familiarity(), errors.sort(0).values[place])

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return whether cells have the shape of training, to which the correlations belong."""
        return tuple(shape) == tuple(int(side) for side in self.familiarity.shape)

    def evaluate(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence, tolerance: float
    ) -> Bracketed:
        """Return the model's answer and its calibrated interval.

        Raises:
            DataError: Phases or materials do not fit.
        """
        dim = len(check_phases(phases, len(materials)))
        quantity = self.model.quantity
        values = quantity.phase_moduli(materials, dim).unsqueeze(0)
        moduli, unit = scaled(local_moduli(phases, values))
        wide = unit.view(-1, 1, 1)
        matrix = self.model.predict_fields(moduli.float()) * wide
        half = self.margins * _sizes(matrix)
        distance = self.familiarity(moduli.float())
        return Bracketed(
            matrix, matrix - half, matrix + half, distance <= 1, "statistical", distance
        )


def _sizes(matrix: Float[Tensor, "batch n n"]) -> Float[Tensor, "batch n n"]:
    root = matrix.diagonal(dim1=1, dim2=2).sqrt()
    return root.unsqueeze(2) * root.unsqueeze(1)

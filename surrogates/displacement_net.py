"""The learned Lippmann-Schwinger step: moduli → displacement of every unit macro load."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microstructures import DataError
from networks.folding import FOLD, fold, unfold
from surrogates.operators import OperatorSettings, operator_settings
from surrogates.reference import ReferencedCells

LOWEST_MODULUS = 1e-4  # relative to the reference; a pore enters the net as this soft a phase


class DisplacementNet(nn.Module):
    """Predict the fluctuation of all unit Mandel loads from the moduli of each voxel.

    A Fourier neural operator or a U-Net on a 2x space-to-depth grid sees the logarithms of the
    moduli over those of a homogeneous reference C0, and the strain of the first Born step
    u1 = G0 div C E.
    It answers with a trial strain E + e for each load E, and `steps` Lippmann-Schwinger steps
    (Moulinec, Suquet 1998) on the solver's own grid turn that into a displacement:

        u = G0 div ((C - C0) : (E + e)),   next e = grad u.

    The exact strain is the fixed point; a step multiplies the error by (c - 1)/(c + 1) at contrast
    c or less, and by far less at the short wavelengths where the operator is blind. The strain of
    u is compatible by construction, the answer is linear in the load, units cancel, and periodic
    shifts by an even number of voxels commute with the net.

    Args:
        dim: 2 or 3.
        steps: Lippmann-Schwinger steps after the operator.
        operator: The Fourier operator's or the U-Net's own settings.
    """

    def __init__(self, *, dim: int, steps: int, operator: OperatorSettings) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "dim": dim,
            "steps": steps,
            **operator.model_dump(mode="json"),
        }
        self.dim, self.n, self.steps = dim, dim * (dim + 1) // 2, steps
        self.size_multiple = FOLD * operator.size_multiple
        block = FOLD**dim
        self.operator = operator.build(
            dim=dim, in_channels=(2 + self.n**2) * block, out_channels=self.n**2 * block
        )

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "DisplacementNet":
        """Return the untrained net of a saved config."""
        own = {key: value for key, value in config.items() if key not in ("dim", "steps")}
        return cls(dim=config["dim"], steps=config["steps"], operator=operator_settings(own))

    def forward(self, referenced: ReferencedCells) -> Float[Tensor, "batch load dim *space"]:
        """Return the displacement in voxels for each unit Mandel load.

        Raises:
            DataError: The dimension differs, or a side is not a multiple of 4.
        """
        cells = referenced.cells
        self.check_shape(cells.shape)
        loads = referenced.unit_loads()
        born = cells.gradient(referenced.born())
        # Shear first, as trained weights expect.
        logs = referenced.moduli.flip(1).clamp_min(LOWEST_MODULUS).log()
        features = [logs, born.flatten(1, 2)]
        answer = unfold(self.operator(fold(torch.cat(features, 1))), self.dim)
        fluctuation = answer.to(loads).unflatten(1, (self.n, self.n))
        displacement = referenced.step(loads + fluctuation)
        for _ in range(self.steps - 1):
            displacement = referenced.step(loads + cells.gradient(displacement))
        return displacement

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells that the net cannot take.

        Raises:
            DataError: The dimension differs, or a side is not a multiple of 4.
        """
        if len(shape) != self.dim:
            raise DataError(
                f"expected {self.dim}-D cells as the surrogate was trained on, got shape "
                f"{tuple(shape)}; use the solver"
            )
        if any(s % self.size_multiple for s in shape):
            raise DataError(
                f"expected sides that are multiples of {self.size_multiple}, got {tuple(shape)}: "
                f"after a {FOLD}x fold the Fourier operator is wrong on odd grids and the U-Net "
                "halves the grid; crop or resample the cell, or use the solver"
            )

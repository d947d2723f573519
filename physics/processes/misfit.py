"""Elastic energy of a coherent composition wave in a cubic crystal."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError


@dataclass(frozen=True)
class CubicMisfit:
    """Elastic constants and lattice misfit of a cubic alloy, cubic axes along the grid.

    Args:
        c11_gpa: C11, the same for both phases.
        c12_gpa: C12.
        c44_gpa: C44; soft directions are <100> if 2 C44 > C11 - C12, else <111> (<110> in 2-D).
        misfit_strain: d ln(lattice parameter)/dc, from c = 0 to c = 1.
        molar_volume_cm3: Volume of a mole of atoms.

    Raises:
        DataError: The stiffness is not positive definite, or a number is not finite.
    """

    c11_gpa: float
    c12_gpa: float
    c44_gpa: float
    misfit_strain: float
    molar_volume_cm3: float = 7.1

    def __post_init__(self) -> None:
        stable = (
            self.c11_gpa > abs(self.c12_gpa)
            and self.c11_gpa + 2 * self.c12_gpa > 0
            and self.c44_gpa > 0
            and self.c11_gpa < float("inf")
            and self.c44_gpa < float("inf")
        )
        if not stable:
            raise DataError(
                "expected cubic constants with C11 > |C12|, C11 + 2 C12 > 0 and C44 > 0, got "
                f"{self.c11_gpa}, {self.c12_gpa}, {self.c44_gpa} GPa"
            )
        if not (abs(self.misfit_strain) < 1 and 0 < self.molar_volume_cm3 < float("inf")):
            raise DataError(
                "expected |misfit_strain| < 1 and molar_volume_cm3 > 0, got "
                f"{self.misfit_strain} and {self.molar_volume_cm3}"
            )

    def energy(self, directions: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point"]:
        """Return B(n) in GPa for unit vectors n; zero for a zero vector.

        A composition wave of amplitude dc along n costs B(n) dc^2 / 4 per volume, with

            B(n) = 3 (C11 + 2 C12) e^2 - n.sigma.Omega(n).sigma.n,   sigma = (C11 + 2 C12) e 1,

        Omega the inverse of n.C.n and e the misfit strain (Khachaturyan 1983, Theory of
        Structural Transformations in Solids). B[100] = 2 e^2 (C11 + 2 C12)(C11 - C12)/C11.
        """
        n = directions.to(torch.float64)
        square = n.square().sum(-1, keepdim=True)
        acoustic = (self.c12_gpa + self.c44_gpa) * n.unsqueeze(-1) * n.unsqueeze(-2)
        rest = self.c11_gpa - self.c12_gpa - 2 * self.c44_gpa
        acoustic = acoustic + torch.diag_embed(self.c44_gpa * square + rest * n.square())
        present = square > 0
        acoustic = torch.where(present.unsqueeze(-1), acoustic, torch.eye(3, dtype=torch.float64))
        relaxation = (n * torch.linalg.solve(acoustic, n.unsqueeze(-1)).squeeze(-1)).sum(-1)
        bulk = self.c11_gpa + 2 * self.c12_gpa
        energy = bulk * self.misfit_strain**2 * (3 - bulk * relaxation)
        return torch.where(present.squeeze(-1), energy, 0.0)

    def energy_map(self, shape: Sequence[int]) -> Float[Tensor, "*frequency"]:
        """Return B(n) in GPa on the grid of `torch.fft.fftn` for cubic voxels, 2-D or 3-D.

        A 2-D cell is a section through a body that does not vary along direction 3.
        """
        axes = [torch.fft.fftfreq(size, dtype=torch.float64) for size in shape]
        k = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        k = torch.nn.functional.pad(k, (0, 3 - len(axes)))
        return self.energy(k / k.norm(dim=-1, keepdim=True).clamp(min=1e-300))

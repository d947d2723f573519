"""Loading paths: which mean strain or mean stress a cell has after each step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microstructures import DataError


@dataclass(frozen=True)
class LoadingPath:
    """Targets of a macroscopic test, step after step, from an unloaded cell.

    Each Mandel component is driven by its mean strain or by its mean stress: `targets[s, c]` is
    the mean strain at the end of step s where `strain_driven[s, c]`, the mean stress in GPa
    elsewhere. Shear components carry Mandel's √2. `targets` may have samples first,
    `(batch, step, n)`; what is driven is the same for all of them. In 2-D (n = 3) the cell is in
    plane strain, whatever the path.

    A step is one implicit Euler step: between its ends the load is proportional.

    Raises:
        DataError: shapes do not agree, or a target is not finite.

    Example:
        >>> test = LoadingPath.uniaxial(strain=(0.02, 0.015, 0.03), steps=20, dim=3)
        >>> test.steps                       # load, unload, load again
        60
    """

    targets: Float[Tensor, "*batch step n"]
    strain_driven: Bool[Tensor, "driven_step driven_n"]

    def __post_init__(self) -> None:
        shape = tuple(self.targets.shape)
        if self.targets.ndim not in (2, 3) or shape[-1] not in (3, 6) or shape[-2] < 1:
            raise DataError(
                "targets: expected (step, n) or (batch, step, n) with n = 3 in 2-D or 6 in 3-D "
                f"and at least one step, got shape {shape}"
            )
        if tuple(self.strain_driven.shape) != shape[-2:]:
            raise DataError(
                f"strain_driven: expected shape {shape[-2:]} like the targets, got "
                f"{tuple(self.strain_driven.shape)}"
            )
        if not bool(self.targets.isfinite().all()):
            raise DataError("targets: expected finite strains and stresses, got inf or nan")

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.targets.shape[-2]

    @property
    def components(self) -> int:
        """Number n of Mandel components."""
        return self.targets.shape[-1]

    def of_samples(
        self, batch: int, device: torch.device | None = None
    ) -> Float[Tensor, "batch step n"]:
        """Return the targets of every sample in float64."""
        targets = self.targets.to(device=device, dtype=torch.float64)
        return targets.expand(batch, *targets.shape[-2:])

    def then(self, other: "LoadingPath") -> "LoadingPath":
        """Return this path followed by another one, whose targets are absolute as well."""
        if other.components != self.components:
            raise DataError(
                f"then: expected a path of {self.components} components, got {other.components}"
            )
        lead = torch.broadcast_shapes(self.targets.shape[:-2], other.targets.shape[:-2])
        first, second = (t.expand(*lead, *t.shape[-2:]) for t in (self.targets, other.targets))
        return LoadingPath(
            torch.cat((first, second), -2), torch.cat((self.strain_driven, other.strain_driven))
        )

    @classmethod
    def proportional(
        cls,
        turning_points: Sequence[Sequence[float | int]],
        *,
        steps: int,
        strain_driven: Sequence[bool] | None = None,
    ) -> "LoadingPath":
        """Return straight lines from zero through turning points, each in equal steps.

        Args:
            turning_points: Mandel targets, n numbers each.
            steps: steps of each line.
            strain_driven: one flag per component; all True when None.
        """
        if steps < 1 or not turning_points:
            raise DataError(
                f"expected at least one turning point and one step, got {len(turning_points)} "
                f"points and steps = {steps}"
            )
        ends = torch.tensor(turning_points, dtype=torch.float64)
        starts = torch.cat((torch.zeros_like(ends[:1]), ends[:-1]))
        share = torch.arange(1, steps + 1, dtype=torch.float64)[:, None] / steps
        targets = torch.cat([a + share * (b - a) for a, b in zip(starts, ends, strict=True)])
        flags = [True] * ends.shape[1] if strain_driven is None else list(strain_driven)
        return cls(targets, torch.tensor([flags] * len(targets)))

    @classmethod
    def uniaxial(
        cls,
        *,
        strain: float | Sequence[float],
        steps: int = 20,
        dim: int = 3,
        axis: int = 0,
    ) -> "LoadingPath":
        """Return a tension test: the strain along one axis driven, all other mean stresses zero.

        In 2-D the cell is in plane strain: the stress across the axis in the plane is zero, the
        out-of-plane strain is.

        Args:
            strain: final axial strain, or several turning points (unloading is a smaller one).
            steps: steps from each turning point to the next.
            dim: 2 or 3.
            axis: 0 is direction 1.
        """
        if dim not in (2, 3) or not 0 <= axis < dim:
            raise DataError(
                f"dim, axis: expected dim 2 or 3 and 0 <= axis < dim, got {dim}, {axis}"
            )
        n = dim * (dim + 1) // 2
        ends = [strain] if isinstance(strain, float | int) else list(strain)
        points = [[end if c == axis else 0.0 for c in range(n)] for end in ends]
        return cls.proportional(points, steps=steps, strain_driven=[c == axis for c in range(n)])

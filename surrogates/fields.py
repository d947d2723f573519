"""FieldSurrogate: the elastic fields of a cell by one net evaluation, with a certificate."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics import certify_elastic, compatible_strain, solve_elasticity
from physics.mechanics.discretisation import staggered_problem
from physics.mechanics.elasticity import ElasticFields
from physics.mechanics.materials import IsotropicElastic
from physics.mechanics.staggered import StaggeredElasticity, mandel_at_centres
from surrogates.bracket_place import MIDDLE, BracketPlace, shear_contrast
from surrogates.displacement_net import DisplacementNet
from surrogates.familiarity import Familiarity, check_sides
from surrogates.iterated import iterated
from surrogates.reference import ReferencedCells
from surrogates.saved_nets import SavedNet, load_net, save_net

CHUNK_VOXELS = 2**15  # voxels predicted at once: fields stay in the cache


@dataclass(frozen=True)
class FieldPrediction:
    """What a surrogate says of some cells.

    Strain (dimensionless) and stress (GPa) are Mandel, at voxel centres; `displacement` is the
    periodic fluctuation in voxels at the staggered nodes. `effective` (GPa) lies in the bracket
    `lower` to `upper` where training cells do (see `BracketPlace`). The bracket is guaranteed in
    the Löwner order for the solver's exact answer on these voxels (level "discrete") whatever the
    net said; with pores only the upper bound is one, and the estimate. Without a certificate the
    estimate is the energy of the predicted strain and the bounds are None. `distance` is at most
    1 for 95 % of the training cells and grows with unlikeness (see `Familiarity`).
    """

    displacement: Float[Tensor, "batch load dim *space"]
    strain: Float[Tensor, "batch load n *space"]
    stress: Float[Tensor, "batch load n *space"]
    effective: Float[Tensor, "batch n n"]
    lower: Float[Tensor, "batch n n"] | None
    upper: Float[Tensor, "batch n n"] | None
    distance: Float[Tensor, " batch"]
    level: str = "discrete"


class FieldSurrogate:
    """Predict displacement, strain, stress and effective stiffness of periodic elastic cells.

    One evaluation of a `DisplacementNet` answers all unit macroscopic loads; any load is their
    combination. The strain is compatible by construction, so the bounds of `certify_elastic`
    hold for every prediction, near the training set or far from it.

    Limits: periodic cells with sides that are multiples of 4 (at least 16); trained for one size
    and a range of contrasts, see the model's card; `distance` above 1 says that a cell is unlike
    the training set, and the bracket says what that cost.

    >>> model = FieldSurrogate.from_pretrained("elastic-2d-fno")  # doctest: +SKIP
    >>> found = model.predict(phases, [soft, stiff])  # doctest: +SKIP
    >>> found.lower[0, 0, 0] <= found.effective[0, 0, 0] <= found.upper[0, 0, 0]  # doctest: +SKIP
    """

    def __init__(
        self, net: DisplacementNet, familiarity: Familiarity, place: BracketPlace = MIDDLE
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.familiarity = familiarity
        self.place = place

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells of a shape that `predict` cannot take, before anything is computed.

        Raises:
            DataError: The dimension differs, or a side is below 16 or not a multiple of 4.
        """
        self.net.check_shape(shape)
        check_sides(shape)

    @torch.no_grad()
    def predict(
        self,
        phases: Shaped[Tensor, "batch *dims"],
        materials: Sequence[IsotropicElastic],
        *,
        macro_strain: Float[Tensor, "batch load n"] | None = None,
        certify: bool = True,
        iterations: int = 0,
    ) -> FieldPrediction:
        """Predict the fields of cells and bracket their effective stiffness.

        Args:
            phases: Labels `(batch, *space)` or fractions `(batch, phase, *space)`.
            materials: One per phase.
            macro_strain: Mandel; the unit loads when None. The effective stiffness and its
                bounds are always the whole `(n, n)` matrix.
            certify: Bound the effective stiffness (float64, for about one solver iteration).
            iterations: Conjugate-gradient iterations of the solver, started from the net's answer,
                before anything else is computed from it.

        Raises:
            DataError: Phases, materials or loads do not fit, or a side is not a multiple of 4.
            ConvergenceError: The net's answer is not finite.
        """
        problem = staggered_problem(phases, materials)
        self.check_shape(problem.shape)
        cells, unit_gpa = ReferencedCells.of_moduli(problem.lame, problem.shear[:, 0])
        unit = self._displacements(problem, cells, iterations)
        bounds = certify_elastic(phases, materials, displacement=unit) if certify else None
        if bounds is None:
            effective = cells.energy(unit).double() * unit_gpa.view(-1, 1, 1)
        else:
            contrast = shear_contrast(cells.moduli)
            effective = self.place.estimate(
                bounds.lower, bounds.upper, contrast, bounds.one_sided, iterations
            )
        displacement, macro = unit, None
        if macro_strain is not None:
            _check_loads(macro_strain, problem)
            macro = macro_strain.to(unit)
            displacement = torch.einsum("blk,bk...->bl...", macro, unit)
        strain, stress = _fields(problem, displacement, macro)
        return FieldPrediction(
            displacement=displacement,
            strain=strain,
            stress=stress,
            effective=effective,
            lower=bounds.lower if bounds else None,
            upper=bounds.upper if bounds else None,
            distance=self.familiarity(cells.moduli),
        )

    @torch.no_grad()
    def displacement(
        self,
        phases: Shaped[Tensor, "batch *dims"],
        materials: Sequence[IsotropicElastic],
        *,
        iterations: int = 0,
    ) -> Float[Tensor, "batch n dim *space"]:
        """Return `predict`'s displacements of the unit loads (voxels) and nothing else.

        Raises:
            DataError: Phases or materials do not fit, or a side is not a multiple of 4.
            ConvergenceError: The net's answer is not finite.
        """
        problem = staggered_problem(phases, materials)
        self.check_shape(problem.shape)
        cells, _ = ReferencedCells.of_moduli(problem.lame, problem.shear[:, 0])
        return self._displacements(problem, cells, iterations)

    @torch.no_grad()
    def distance(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence[IsotropicElastic]
    ) -> Float[Tensor, " batch"]:
        """Return `predict`'s distance from the training set and nothing else."""
        problem = staggered_problem(phases, materials)
        cells, _ = ReferencedCells.of_moduli(problem.lame, problem.shear[:, 0])
        return self.familiarity(cells.moduli)

    def refine(
        self,
        phases: Shaped[Tensor, "batch *dims"],
        materials: Sequence[IsotropicElastic],
        *,
        macro_strain: Float[Tensor, "batch load n"] | None = None,
        tolerance: float = 1e-4,
    ) -> ElasticFields:
        """Return the solver's fields, its iterations started from the prediction."""
        start = self.predict(phases, materials, macro_strain=macro_strain, certify=False)
        return solve_elasticity(
            phases,
            materials,
            macro_strain,
            tolerance=tolerance,
            displacement=start.displacement,
        )

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        saved = SavedNet(self.net, self.familiarity, {"place": asdict(self.place)})
        return save_net(folder, saved, name=type(self).__name__, card=card, half=half)

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path) -> "FieldSurrogate":
        """Load a saved model, or shipped weights by name.

        Raises:
            CheckpointError: No such model, or its files were altered.
        """
        saved = load_net(folder_or_name, DisplacementNet.of_config, name=cls.__name__)
        return cls(saved.net, saved.familiarity, BracketPlace(**saved.config.get("place", {})))

    def _displacements(
        self, problem: StaggeredElasticity, cells: ReferencedCells, iterations: int
    ) -> Tensor:
        size = max(1, CHUNK_VOXELS // cells.cells.lame[0].numel())
        starts = range(0, cells.cells.batch, size)
        unit = torch.cat([self.net(cells.select(slice(k, k + size))) for k in starts])
        if not torch.isfinite(unit).all():
            raise ConvergenceError(
                "expected finite displacements from the surrogate, got NaN or infinity; "
                "use the solver for these materials"
            )
        return iterated(problem, unit, iterations) if iterations else unit


def _fields(
    problem: StaggeredElasticity, displacement: Tensor, macro: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return strain and stress at the voxel centres, in the precision of the displacement."""
    dim, n = problem.unknowns, problem.components
    loads = torch.eye(n).expand(problem.batch, n, n) if macro is None else macro
    loads = loads.to(displacement)
    native = problem.gradient(displacement) + loads.view(*loads.shape, *[1] * dim)
    single = StaggeredElasticity(
        problem.lame.to(displacement), problem.shear.to(displacement), problem.ratio
    )
    return compatible_strain(displacement, loads), mandel_at_centres(single.stress(native))


def _check_loads(macro_strain: Tensor, problem: StaggeredElasticity) -> None:
    fits = macro_strain.ndim == 3 and macro_strain.shape[0] == problem.batch
    if not fits or macro_strain.shape[2] != problem.components:
        raise DataError(
            f"expected macro_strain of shape ({problem.batch}, load, {problem.components}), got "
            f"{tuple(macro_strain.shape)}"
        )
    if not torch.isfinite(macro_strain).all():
        raise DataError("expected a finite macro_strain, got NaN or infinity")

"""Solved cells as specimens of one number each: conductivity, thermal expansion, yield stress."""

import torch
from torch import Tensor

from physics import IsotropicElastic, effective_stiffness
from studies.run_folder import RunFolder, Stage
from studies.surrogate_cells import family_cells
from surrogates.labels import LabelledCells
from surrogates.specimens import Specimens
from surrogates.thermal_expansion import expansion_bracket
from surrogates.yield_stress import YieldRange

EXPANSIONS = (0.0, 1.0)  # of the phases: the effective one is then a share of theirs
SOLVED = 1e-4


def k11(cells: LabelledCells) -> Tensor:
    """Return k11 of solved conductivities, in their reference's unit."""
    return cells.effective[:, 0, 0].double()


def conducting(cells: LabelledCells) -> Specimens:
    """Return cells with their conductivities as columns, between Reuss and Voigt."""
    values, fractions = cells.moduli[:, 0].double(), _fractions(cells.phases)
    return _specimens(
        cells.phases,
        (values[:, 1:] / values[:, :1]).log(),
        k11(cells),
        (1 / (fractions / values).sum(1), (fractions * values).sum(1)),
    )


def expanding(cells: LabelledCells) -> Specimens:
    """Return cells with their elastic ratios as columns and a11 by Levin's relation."""
    bulk, shear = cells.moduli.double().unbind(1)
    inputs = torch.cat([(shear[:, 1:] / shear[:, :1]).log(), (bulk / shear).log()], 1)
    return _specimens(cells.phases, inputs, expansions(cells, cells.effective)[0], None)


def yielding(run: RunFolder, side: int, first: int, count: int, seed: int) -> Specimens:
    """Return cells with the solver's yield stress, in units of Young's modulus of phase 0."""
    phases = family_cells(run, "spinodal", first=first, count=count, side=side).phases
    drawn = YieldRange().drawn(len(phases), seed=seed)

    def solved() -> Stage:
        arrays = {"stress": drawn.offset_stress(phases), "own": drawn.own_stress()}
        return Stage({}, {name: values.numpy() for name, values in arrays.items()})

    arrays = run.stage(f"quantities-yield-{side}-{first}-{count}", solved).arrays
    stress, own = (torch.from_numpy(arrays[name]) for name in ("stress", "own"))
    specimens = _specimens(phases, drawn.inputs(), stress, drawn.bounds(own, _fractions(phases)))
    followed = (stress.isfinite() & own.isfinite().all(1)).nonzero().flatten()
    return specimens.select(followed)


def beyond(cells: Specimens) -> tuple[Tensor, Tensor]:
    """Return which cells' yield stress is below and above the bounds."""
    assert cells.measured is not None
    assert cells.lower is not None
    assert cells.upper is not None
    return cells.measured < cells.lower, cells.measured > cells.upper


def expansions(
    cells: LabelledCells, stiffness: Tensor, half: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return a11 of stiffnesses by Levin's relation, and the half width of its interval."""
    half = torch.zeros_like(stiffness) if half is None else half
    value, wide = stiffness.double(), half.double()
    rows = []
    for k in range(len(cells)):
        materials, ends = _materials(cells, k), (value[k : k + 1], wide[k : k + 1])
        found = expansion_bracket(
            ends[0],
            ends[0] - ends[1],
            ends[0] + ends[1],
            materials,
            EXPANSIONS,
            level="statistical",
        )
        rows.append((float(found.value[0, 0]), float((found.upper - found.value)[0, 0])))
    shares, widths = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return shares, widths


def levin_error(cells: LabelledCells, count: int = 8) -> float:
    """Return how far Levin's relation is from the solver's own expansion, at most."""
    worst = 0.0
    for k in range(min(count, len(cells))):
        materials, phases = _materials(cells, k), cells.phases[k : k + 1]
        solved = effective_stiffness(phases, materials, tolerance=SOLVED, eigenstrain=EXPANSIONS)
        ends = (solved.value, solved.lower, solved.upper)
        found = expansion_bracket(*ends, materials, EXPANSIONS, level="discrete")
        assert solved.eigenstrain is not None
        worst = max(worst, float((found.value - solved.eigenstrain).abs().max()))
    return worst


def _specimens(
    phases: Tensor, inputs: Tensor, measured: Tensor, bounds: tuple[Tensor, Tensor] | None
) -> Specimens:
    """Return every cell as a specimen of its own."""
    return Specimens(
        names=tuple(f"cell-{k}" for k in range(len(phases))),
        phases=phases,
        owner=torch.arange(len(phases)),
        inputs=inputs.double(),
        measured=measured,
        lower=None if bounds is None else bounds[0],
        upper=None if bounds is None else bounds[1],
    )


def _fractions(phases: Tensor) -> Tensor:
    second = (phases == 1).flatten(1).double().mean(1)
    return torch.stack([1 - second, second], 1)


def _materials(cells: LabelledCells, k: int) -> list[IsotropicElastic]:
    found = []
    for bulk, shear in cells.moduli[k].double().T.tolist():
        nu = (bulk - shear) / (2 * bulk)
        found.append(IsotropicElastic(youngs_modulus_gpa=2 * shear * (1 + nu), poisson_ratio=nu))
    return found

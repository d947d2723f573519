"""Brackets of the voxel continuum and discrete certificates: containment, width and cost."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures.seeds import generator_for
from physics import IsotropicElastic, effective_conductivity, effective_stiffness
from physics.mechanics.cells import MAX_ITERATIONS, solve_cells
from physics.mechanics.certificates import Certificate, certify_conductive, certify_elastic
from physics.mechanics.conductivity import conduction_problem
from physics.mechanics.continuum import ContinuumBounds, continuum_bounds
from physics.mechanics.discrete_bounds import bracket
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.problem import CellProblem
from physics.mechanics.trial_state import unit_loads
from physics.processes import RandomField
from studies.stopwatch import one_thread, race

SLACK = 1e-6
"""Relative slack of the truth, which is a converged solve."""


@dataclass(frozen=True)
class Cell:
    """A random two-phase cell: labels `(1, *space)`, and the phases of its elastic twin.

    `conducts` says whether its conductivity is looked at, the phases' Young's moduli standing for
    conductivities.
    """

    family: str
    phases: Tensor
    materials: tuple[IsotropicElastic, ...]
    conducts: bool

    @property
    def conductivities(self) -> list[float]:
        """The phases' conductivities."""
        return [material.youngs_modulus_gpa for material in self.materials]

    def problem(self, scheme: str = "q1") -> CellProblem:
        """Return the discrete problem of a scheme."""
        if self.conducts:
            return conduction_problem(self.phases, self.conductivities, scheme)
        return elastic_problem(self.phases, self.materials, scheme)

    def upper_value(self, times: int) -> Float[Tensor, "1 n n"]:
        """Return the q1 solver's value with each voxel cut into `times` along every axis."""
        phases = self.phases
        for axis in range(1, phases.ndim):
            phases = phases.repeat_interleave(times, axis)
        if self.conducts:
            k = self.conductivities
            return effective_conductivity(phases, k, scheme="q1", tolerance=1e-6).value
        return effective_stiffness(phases, self.materials, scheme="q1", tolerance=1e-6).value


@dataclass(frozen=True)
class Margin:
    """What a claim "low <= truth <= high" amounted to on some cells.

    `worst` is the least eigenvalue of both differences relative to the truth: below -SLACK it is a
    violation.
    """

    name: str
    cells: int
    violations: int
    worst: float


@dataclass(frozen=True)
class Width:
    """Widths of brackets of some cells, relative to the midpoint.

    `first` is that of C11 (or k11), `loads` the largest of all loads; means and maxima of cells.
    """

    name: str
    cells: int
    first: float
    first_worst: float
    loads: float
    loads_worst: float


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a bracket and of single solves to the default tolerance."""

    name: str
    bracket: float
    staggered: float
    q1: float

    @property
    def solves(self) -> float:
        """The bracket in staggered solves."""
        return self.bracket / self.staggered

    @property
    def q1_solves(self) -> float:
        """The bracket in q1 solves."""
        return self.bracket / self.q1


def noise(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return voxels drawn independently, at a random fraction."""
    return torch.rand(space, generator=generator) < 0.1 + 0.8 * _uniform(generator)


def cut_field(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return a Gaussian field of random length, cut at a random level."""
    length = 1.0 + 2.0 * _uniform(generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    field = RandomField().field(length, shape=space, seed=seed)[0]
    return field > 2.0 * _uniform(generator) - 1.0


def particles(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return discs or balls at random, some of them overlapping."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) for n in space], indexing="ij"))
    found = torch.zeros(space, dtype=torch.bool)
    view = (-1, *[1] * len(space))
    sides = torch.tensor(space).view(view)
    for _ in range(int(torch.randint(1, 6, (), generator=generator))):
        centre = torch.rand(len(space), generator=generator).view(view) * sides
        apart = (grid - centre).abs()
        radius = min(space) * (0.1 + 0.2 * _uniform(generator))
        found |= torch.minimum(apart, sides - apart).square().sum(0) < radius**2
    return found


def laminate(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return random layers across a random axis."""
    axis = int(torch.randint(len(space), (), generator=generator))
    layers = torch.rand(space[axis], generator=generator) < 0.5
    return layers.view([-1 if k == axis else 1 for k in range(len(space))]).expand(space)


def checkerboard(space: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return a checkerboard of random tiles (an odd one meets itself at the cell's edge)."""
    edge = int(torch.randint(1, max(2, min(space) // 2), (), generator=generator))
    tiles = torch.zeros(space, dtype=torch.long)
    for axis, n in enumerate(space):
        row = torch.arange(n) // edge
        tiles = tiles + row.view([-1 if k == axis else 1 for k in range(len(space))])
    return tiles % 2 == 1


FAMILIES: Mapping[str, Callable[[tuple[int, ...], torch.Generator], Tensor]] = {
    "noise": noise,
    "field": cut_field,
    "particles": particles,
    "laminate": laminate,
    "checkerboard": checkerboard,
}


def random_cells(
    n_cells: int,
    *,
    seed: int = 0,
    families: Sequence[str] = tuple(FAMILIES),
    dims: Sequence[int] = (2, 3),
    sides: Mapping[int, tuple[int, int]] = {2: (8, 16), 3: (4, 6)},
    contrast: float = 1e4,
    pores: bool = False,
) -> Iterator[Cell]:
    """Yield cells of all families, dimensions and both physics in turn; cell k from (seed, k).

    Contrasts are log-uniform in either direction up to `contrast`, Poisson's ratios uniform in
    [0, 0.45]; with `pores` the second phase carries nothing.
    """
    for k in range(n_cells):
        generator = generator_for(seed, k)
        family = families[k % len(families)]
        dim = dims[(k // len(families)) % len(dims)]
        low, high = sides[dim]
        space = tuple(torch.randint(low, high + 1, (dim,), generator=generator).tolist())
        phases = FAMILIES[family](space, generator).long().unsqueeze(0)
        ratios = (0.45 * torch.rand(2, generator=generator)).tolist()
        stiff = contrast ** (2.0 * _uniform(generator) - 1.0)
        if pores:
            stiff = 0.0
            # Some cell without any solid could carry nothing at all.
            phases[(0,) * (dim + 1)] = 0
        moduli = (1.0, stiff)
        materials = tuple(
            IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=nu)
            for e, nu in zip(moduli, ratios, strict=True)
        )
        yield Cell(family, phases, materials, bool(k // (len(families) * len(dims)) % 2))


def bracket_containment(
    n_cells: int = 1000,
    *,
    seed: int = 0,
    families: Sequence[str] = tuple(FAMILIES),
    dims: Sequence[int] = (2, 3),
    pores: bool = False,
    refinement: int = 4,
) -> list[Margin]:
    """Return per family how brackets hold the q1 value of voxels cut into `refinement` per axis.

    That value is above the continuum's; that the bracket holds it follows from the bounds, and
    from the nested elements above. The last row is that of all cells.
    """
    worst: dict[str, list[float]] = {}
    cells = random_cells(n_cells, seed=seed, families=families, dims=dims, pores=pores)
    for cell in cells:
        bounds = continuum_bounds(cell.problem())
        truth = cell.upper_value(refinement)
        worst.setdefault(cell.family, []).append(_margin(cell, bounds.lower, truth, bounds.upper))
    return _margins(worst)


def certificate_violations(
    n_cells: int = 10_000,
    *,
    seed: int = 0,
    families: Sequence[str] = tuple(FAMILIES),
    dims: Sequence[int] = (2, 3),
) -> list[Margin]:
    """Return per family how discrete certificates of trial fields hold the solver's value.

    Trial fields are noise of log-uniform size from 0.001 to 10, half of them added to the
    converged field. Staggered, q1 and rotated schemes at random.
    """
    worst: dict[str, list[float]] = {}
    schemes = ("staggered", "q1", "rotated")
    sides = {2: (4, 10), 3: (2, 4)}
    cells = random_cells(n_cells, seed=seed, families=families, dims=dims, sides=sides)
    for k, cell in enumerate(cells):
        generator = generator_for("trial", seed, k)
        scheme = schemes[int(torch.randint(len(schemes), (), generator=generator))]
        certificate, truth = _certified(cell, scheme, generator)
        margin = _margin(cell, certificate.lower, truth, certificate.upper)
        worst.setdefault(cell.family, []).append(margin)
    return _margins(worst)


def bracket_widths(
    *,
    side: int = 128,
    dim: int = 2,
    correlation_length: float = 12.0,
    contrasts: Sequence[float] = (10.0, 100.0),
    fractions: Sequence[float] = (0.4, 0.5),
    n_cells: int = 4,
    seed: int = 0,
) -> list[Width]:
    """Return widths for cut Gaussian fields, covariance exp(-(r / length)^2 / 2), E 1 : c."""
    rows = []
    for conducts in (False, True):
        for contrast in contrasts:
            for fraction in fractions:
                phases = _fields(n_cells, side, dim, correlation_length, fraction, seed)
                parts = [
                    continuum_bounds(_two_phase(phase, contrast, conducts)) for phase in phases
                ]
                rows.append(_width(_name(conducts, contrast, fraction, side, dim), parts))
    return rows


def bracket_cost(
    *,
    side: int = 128,
    dim: int = 2,
    correlation_length: float = 12.0,
    contrasts: Sequence[float] = (10.0, 100.0),
    repetitions: int = 3,
    seed: int = 0,
) -> list[Cost]:
    """Return CPU seconds of brackets against one solve to the default tolerance, one thread."""
    rows = []
    (phases,) = _fields(1, side, dim, correlation_length, 0.4, seed)
    with one_thread():
        for conducts in (False, True):
            for contrast in contrasts:
                rivals = _rivals(phases, contrast, conducts)
                taken = race(rivals, repetitions=repetitions)
                name = _name(conducts, contrast, 0.4, side, dim)
                rows.append(Cost(name, taken["bracket"], taken["staggered"], taken["q1"]))
    return rows


def _rivals(phases: Tensor, contrast: float, conducts: bool) -> dict[str, Callable[[], object]]:
    materials = _materials(contrast)
    k = [1.0, contrast]

    def bracket() -> object:
        return continuum_bounds(_two_phase(phases, contrast, conducts))

    def solve(scheme: str) -> Callable[[], object]:
        if conducts:
            return lambda: effective_conductivity(phases, k, scheme=scheme)
        return lambda: effective_stiffness(phases, materials, scheme=scheme)

    return {"bracket": bracket, "staggered": solve("staggered"), "q1": solve("q1")}


def _certified(
    cell: Cell, scheme: str, generator: torch.Generator
) -> tuple[Certificate, Float[Tensor, "1 n n"]]:
    """Return the certificate of a trial field, and the scheme's converged value."""
    problem = cell.problem(scheme)
    macro = unit_loads(1, problem.components, problem.device)
    states, _ = solve_cells(
        problem,
        macro,
        displacement=None,
        tolerance=1e-6,
        max_iterations=MAX_ITERATIONS,
        dtype=torch.float64,
    )
    truth = bracket(problem, macro, states).value
    solved = torch.cat([state.displacement for state in states], 1)
    size = 10.0 ** (4.0 * _uniform(generator) - 3.0)
    rough = size * torch.randn(solved.shape, generator=generator, dtype=torch.float64)
    trial = rough + float(torch.randint(2, (), generator=generator)) * solved
    if cell.conducts:
        potential = trial.squeeze(2)
        found = certify_conductive(
            cell.phases, cell.conductivities, potential=potential, scheme=scheme
        )
    else:
        found = certify_elastic(cell.phases, cell.materials, displacement=trial, scheme=scheme)
    return found, truth


def _margin(cell: Cell, low: Tensor, truth: Tensor, high: Tensor) -> float:
    """Return the least eigenvalue of truth - low and high - truth, relative to the truth.

    Loads that the truth hardly carries count as if they carried a thousandth of the stiffer phase.
    """
    values, vectors = torch.linalg.eigh(truth)
    floor = 1e-3 * max(material.youngs_modulus_gpa for material in cell.materials)
    root = vectors / values.clamp_min(floor).sqrt().unsqueeze(-2)
    gaps = torch.stack((truth - low, high - truth))
    return float(torch.linalg.eigvalsh(root.mT @ gaps @ root).min())


def _margins(worst: Mapping[str, Sequence[float]]) -> list[Margin]:
    everything = [margin for margins in worst.values() for margin in margins]
    return [
        Margin(name, len(margins), sum(m < -SLACK for m in margins), min(margins, default=math.nan))
        for name, margins in [*worst.items(), ("all", everything)]
    ]


def _width(name: str, parts: Sequence[ContinuumBounds]) -> Width:
    first = [float(((b.upper - b.lower) / b.value)[0, 0, 0]) for b in parts]
    loads = [float(b.width) for b in parts]
    n = len(parts)
    return Width(name, n, sum(first) / n, max(first), sum(loads) / n, max(loads))


def _fields(
    n_cells: int, side: int, dim: int, length: float, fraction: float, seed: int
) -> list[Tensor]:
    """Return labels `(1, *space)` of cells at the exact fraction."""
    process = RandomField(exact_fraction=True)
    point = {"volume_fraction": fraction, "correlation_length_um": length}
    cells = process.simulate(point, shape=(side,) * dim, seed=seed, n=n_cells)
    return [torch.from_numpy(cell.phases.astype("int64")).unsqueeze(0) for cell in cells]


def _materials(contrast: float) -> list[IsotropicElastic]:
    return [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.3) for e in (1.0, contrast)]


def _two_phase(phases: Tensor, contrast: float, conducts: bool) -> CellProblem:
    if conducts:
        return conduction_problem(phases, [1.0, contrast], "q1")
    return elastic_problem(phases, _materials(contrast), "q1")


def _name(conducts: bool, contrast: float, fraction: float, side: int, dim: int) -> str:
    physics = "conductivity" if conducts else "stiffness"
    return f"{physics}, {side}^{dim}, contrast {contrast:g}, fraction {fraction:g}"


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))

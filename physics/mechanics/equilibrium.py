"""Equilibrium of elastic-plastic cells after one load increment: Newton's method over FFT-CG.

Unknowns are the periodic displacement u and those mean strains E that are not prescribed; the
equations are div stress = 0 and <stress> = prescribed. They are the stationarity of

    Pi(u, E) = <W(E + grad u)> - S : E,

W the incremental energy of the radial return, which is convex: Newton's direction goes down, and
the line search keeps Pi falling. The linear systems couple u and E; the reference material's own
mixed problem, which falls apart into its Green operator for u and its stiffness for E, is the
preconditioner (Kabel, Fliegener, Schneider 2016, doi:10.1007/s00466-016-1264-0).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics.mechanics.krylov import conjugate_gradients
from physics.mechanics.materials import isotropic_stiffness
from physics.mechanics.nodal import NodalElasticity
from physics.mechanics.radial_return import (
    ConsistentTangent,
    PlasticLaw,
    PlasticState,
    PlasticUpdate,
    in_plane,
)

FIRST_FORCING, FORCING = 0.1, 0.9
"""Largest relative residual of a linear solve, and the factor in Eisenstat and Walker's choice."""

MAX_BACKTRACKS = 12
ROUND_OFF = 1e-13
"""Share of the energy below which a difference of energies means nothing."""


@dataclass(frozen=True)
class Trial:
    """Fields of some cells at a trial displacement and mean strain, samples first.

    `residual` and `norm` are the unbalanced force and its size in the reference material's energy
    norm; `norm / scale` is the share of the stress field that is not in equilibrium.
    """

    displacement: Float[Tensor, "batch 1 dim *space"]
    mean_strain: Float[Tensor, "batch 1 n"]
    strain: Float[Tensor, "batch 1 n *points"]
    update: PlasticUpdate
    residual: Float[Tensor, "batch 1 unknowns"]
    norm: Float[Tensor, " batch"]
    scale: Float[Tensor, " batch"]


@dataclass(frozen=True)
class NewtonSettings:
    """When to stop: `tolerance` bounds norm / scale, the others count iterations."""

    tolerance: float
    max_newton: int
    max_iterations: int


@dataclass(frozen=True)
class NewtonRecord:
    """Iterations per sample, and norm / scale before each Newton iteration."""

    newton: Int[Tensor, " batch"]
    cg: Int[Tensor, " batch"]
    history: list[Float[Tensor, " batch"]]


class MixedSystem:
    """The equations of cells under one kind of control, and their preconditioner.

    Where a component is not `strain_driven`, its mean strain is unknown and its mean stress given.
    Unknowns are packed as `(batch, load, V)`: the displacement, then the n mean strains. Their
    inner product with a residual is an energy summed over voxels.
    """

    def __init__(
        self,
        problem: NodalElasticity,
        strain_driven: Bool[Tensor, " n"],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.problem = problem
        self.voxels = prod(problem.shape)
        self.free = (~strain_driven).to(dtype)
        self._green = problem.green(dtype)
        stiffness = isotropic_stiffness(problem.ratio, 1.0, problem.unknowns)
        free = (~strain_driven).nonzero().flatten().cpu()
        compliance = torch.zeros_like(stiffness)
        compliance[free[:, None], free] = torch.linalg.inv(stiffness[free[:, None], free])
        self._compliance = (compliance / self.voxels).to(strain_driven.device, dtype)

    def pack(self, displacement: Tensor, mean: Tensor) -> Tensor:
        """Return a displacement (or force) and mean strain (or sum of stress) as one vector."""
        return torch.cat((displacement.flatten(2), mean), 2)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the displacement and the mean strain of a packed vector."""
        n = self.problem.components
        field, mean = packed[:, :, :-n], packed[:, :, -n:]
        return field.unflatten(2, (self.problem.unknowns, *self.problem.shape)), mean

    def strain(self, displacement: Tensor, mean: Tensor) -> Tensor:
        """Return the strain field of a displacement and a mean strain."""
        return self.problem.gradient(displacement) + self.problem.spread(mean)

    def force(self, stress: Tensor, mean_stress: Tensor) -> Tensor:
        """Return div stress and mean_stress - <stress> where it is prescribed, as a residual."""
        missing = (mean_stress - self.problem.mean(stress)) * (self.free * self.voxels)
        return self.pack(self.problem.divergence(stress), missing)

    def precondition(self, r: Tensor) -> Tensor:
        """Return the reference material's answer to a residual."""
        force, mean = self.unpack(r)
        return self.pack(self._green(force), mean @ self._compliance)

    def size(self, stress: Tensor) -> Float[Tensor, " batch"]:
        """Return the reference material's energy norm of a stress field."""
        dim, ratio = self.problem.unknowns, self.problem.ratio
        weight = 0.5 / prod(self.problem.points)
        square = stress.flatten(1).square().sum(1)
        trace = stress[:, :, :dim].sum(2).flatten(1).square().sum(1)
        return (weight * (square - ratio / (dim * ratio + 2.0) * trace)).sqrt()


class TangentOperator:
    """The linearised equations: a packed step to the force and mean stress it takes.

    Steps leave prescribed strains alone: neither a residual nor its preconditioned form has them.
    """

    def __init__(self, system: MixedSystem, tangent: ConsistentTangent) -> None:
        self._system, self._tangent = system, tangent

    def __call__(self, field: Tensor, /) -> Tensor:
        system = self._system
        displacement, mean = system.unpack(field)
        stress = self._tangent(system.strain(displacement, mean))
        return -system.force(stress, torch.zeros_like(mean))

    def select(self, keep: Tensor, /) -> "TangentOperator":
        """Return the operator of some of the samples."""
        return TangentOperator(self._system, picked(self._tangent, keep))


def evaluate(
    system: MixedSystem,
    law: PlasticLaw,
    old: PlasticState,
    target: Float[Tensor, "batch n"],
    displacement: Float[Tensor, "batch 1 dim *space"],
    mean_strain: Float[Tensor, "batch 1 n"],
) -> Trial:
    """Return the fields and the residual at a displacement and mean strain."""
    strain = system.strain(displacement, mean_strain)
    update = law.update(strain, old)
    stress = in_plane(update.stress)
    residual = system.force(stress, target.unsqueeze(1))
    square = (residual * system.precondition(residual)).flatten(1).sum(1)
    norm = square.clamp_min(0.0).sqrt()
    return Trial(displacement, mean_strain, strain, update, residual, norm, system.size(stress))


def potential(
    system: MixedSystem, law: PlasticLaw, target: Float[Tensor, "batch n"], trial: Trial
) -> Float[Tensor, " batch"]:
    """Return the incremental potential Pi of a trial, summed over voxels, in GPa."""
    energy = law.energy(trial.strain, trial.update).flatten(1).mean(1)
    load = (target * system.free * trial.mean_strain[:, 0]).sum(1)
    return system.voxels * (energy - load)


def equilibrate(
    system: MixedSystem,
    law: PlasticLaw,
    old: PlasticState,
    target: Float[Tensor, "batch n"],
    trial: Trial,
    floor: Float[Tensor, " batch"],
    settings: NewtonSettings,
) -> tuple[Trial, NewtonRecord]:
    """Return the trial after Newton's iterations, each sample until it is in equilibrium.

    `target` holds the prescribed mean stresses (entries of prescribed strains are not read).

    A sample is done when norm <= tolerance * max(scale, floor). Steps are solved as accurately as
    the fall of the residual deserves (Eisenstat and Walker 1996, doi:10.1137/0917003). Whoever
    calls looks at the norms: a sample may end without being done.
    """
    batch = len(trial.norm)
    newton = torch.zeros(batch, dtype=torch.int64, device=trial.norm.device)
    cg, before = newton.clone(), trial.norm.clone()
    history = []
    for _ in range(settings.max_newton):
        history.append(trial.norm / torch.maximum(trial.scale, floor))
        limit = settings.tolerance * torch.maximum(trial.scale, floor)
        live = (~(trial.norm <= limit)).nonzero().flatten()
        if not len(live):
            break
        part, rest = picked(trial, live), (picked(old, live), target[live])
        forcing = (FORCING * (part.norm / before[live]) ** 2).clamp(max=FIRST_FORCING)
        step, counts = conjugate_gradients(
            TangentOperator(system, part.update.tangent),
            system.precondition,
            part.residual.clone(),
            target=torch.maximum(forcing * part.norm, 0.3 * limit[live]).unsqueeze(1),
            max_iterations=settings.max_iterations,
        )
        before[live] = part.norm
        newton[live] += 1
        cg[live] += counts[:, 0]
        part = line_search(system, law.select(live), *rest, part, step)
        trial = replaced(trial, live, part)
    return trial, NewtonRecord(newton, cg, history)


def line_search(
    system: MixedSystem,
    law: PlasticLaw,
    old: PlasticState,
    target: Float[Tensor, "batch n"],
    start: Trial,
    step: Float[Tensor, "batch 1 unknowns"],
) -> Trial:
    """Return the trial at the longest tried part of a step, from 1 down, that lowers the potential.

    Pi is convex along the step: where it still falls at the end it has fallen throughout. Else it
    must have fallen by Armijo's share; a shorter part is where the secant of the slopes is zero.
    """
    moves, strains = system.unpack(step)
    slope = -(start.residual * step).sum((1, 2))
    length = torch.ones_like(slope)
    energy = None
    trial = start
    for _ in range(MAX_BACKTRACKS):
        share = length.view(-1, 1, 1)
        trial = evaluate(
            system,
            law,
            old,
            target,
            start.displacement + moves * share.view(-1, *[1] * (moves.ndim - 1)),
            start.mean_strain + strains * share,
        )
        slope_there = -(trial.residual * step).sum((1, 2))
        good = slope_there <= 0.0
        if bool(good.all()):
            break
        if energy is None:
            energy = potential(system, law, target, start)
        drop = potential(system, law, target, trial) - energy
        good = good | (drop <= 1e-4 * length * slope + ROUND_OFF * energy.abs())
        if bool(good.all()):
            break
        secant = slope / (slope - slope_there)
        length = torch.where(good, length, length * secant.clamp(0.1, 0.8))
    return trial


def mapped(record: Any, change: Callable[..., Tensor], *others: Any) -> Any:
    """Return nested dataclasses of tensors with each tensor changed, beside those of others."""
    if not is_dataclass(record):
        return change(record, *others)
    names = [entry.name for entry in fields(record)]
    parts = [[getattr(one, name) for one in (record, *others)] for name in names]
    return type(record)(*[mapped(first, change, *more) for first, *more in parts])  # type: ignore


def picked(record: Any, keep: Tensor) -> Any:
    """Return the record of some of the samples."""
    return mapped(record, lambda tensor: tensor[keep])


def replaced(record: Any, keep: Tensor, part: Any) -> Any:
    """Return the record with the samples `keep` taken from another one."""
    return mapped(record, lambda whole, some: whole.index_copy(0, keep, some), part)

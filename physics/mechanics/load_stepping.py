"""One load step of elastic-plastic cells: its start, and halving where Newton's method fails."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microstructures import ConvergenceError
from physics.mechanics.equilibrium import (
    MixedSystem,
    NewtonRecord,
    NewtonSettings,
    Trial,
    equilibrate,
    evaluate,
    picked,
    potential,
    replaced,
)
from physics.mechanics.nodal import NodalElasticity
from physics.mechanics.radial_return import PlasticLaw, in_plane

LONGEST_EXTRAPOLATION = 10.0
"""Multiple of the last step beyond which the next one is not sought along it."""


@dataclass(frozen=True)
class Equilibrium:
    """A slab of cells in equilibrium, what led there, and sums over the path so far."""

    trial: Trial
    moved: Float[Tensor, "batch 1 dim *space"]
    strained: Float[Tensor, "batch 1 n"]
    driven: Float[Tensor, "batch n"]
    """Last changes of displacement, mean strain and prescribed values: where to look next."""
    work: Float[Tensor, " batch"]
    plastic_work: Float[Tensor, " batch"]
    largest: Float[Tensor, " batch"]
    newton: Int[Tensor, " batch"]
    cg: Int[Tensor, " batch"]
    substeps: Int[Tensor, " batch"]


@dataclass(frozen=True)
class SteppedCells:
    """A slab of cells: discretisation, law, and how to solve one step."""

    problem: NodalElasticity
    law: PlasticLaw
    settings: NewtonSettings
    max_halvings: int

    def unloaded(self) -> Equilibrium:
        """Return the virgin cells."""
        problem, batch, device = self.problem, len(self.law.bulk), self.law.bulk.device
        strain = torch.zeros(batch, 1, problem.components, dtype=torch.float64, device=device)
        still = strain.new_zeros(batch, 1, problem.unknowns, *problem.shape)
        system = MixedSystem(problem, torch.ones_like(strain[0, 0], dtype=torch.bool))
        old = self.law.virgin_state(problem.spread(strain))
        trial = evaluate(system, self.law, old, strain[:, 0], still, strain)
        none = trial.norm
        count = torch.zeros_like(none, dtype=torch.int64)
        return Equilibrium(
            trial, still, strain, strain[:, 0], none, none, none, count, count, count
        )

    def advance(
        self,
        state: Equilibrium,
        target: Float[Tensor, "batch n"],
        strain_driven: Bool[Tensor, " n"],
        step: int,
        halvings: int = 0,
    ) -> Equilibrium:
        """Return the cells at the end of a step; samples that fail take it in two halves."""
        system = MixedSystem(self.problem, strain_driven)
        start = self._start(system, state, target)
        trial, record = equilibrate(
            system,
            self.law,
            state.trial.update.state,
            target,
            start,
            state.largest,
            self.settings,
        )
        after = self._after(state, trial, target, strain_driven, record)
        limit = self.settings.tolerance * after.largest
        failed = (~(trial.norm <= limit)).nonzero().flatten()
        if not len(failed):
            return after
        if halvings == self.max_halvings:
            raise ConvergenceError(self._told(record, failed, step, halvings))
        cells = replace(self, law=self.law.select(failed))
        before = picked(state, failed)
        # The failed attempt's iterations count, its fields do not.
        spent = replace(before, newton=after.newton[failed], cg=after.cg[failed])
        middle = 0.5 * (_prescribed(before.trial, self.problem, strain_driven) + target[failed])
        halfway = cells.advance(spent, middle, strain_driven, step, halvings + 1)
        done = cells.advance(halfway, target[failed], strain_driven, step, halvings + 1)
        return replaced(after, failed, done)

    def _start(self, system: MixedSystem, state: Equilibrium, target: Tensor) -> Trial:
        """Return the better start by its potential: the last fields, or their extrapolation."""
        driven = system.free == 0.0
        change = target - _prescribed(state.trial, self.problem, driven)
        along = (change * state.driven).sum(1) / state.driven.square().sum(1)
        share = torch.nan_to_num(along, posinf=0.0, neginf=0.0)
        share = share.clamp(0.0, LONGEST_EXTRAPOLATION).view(-1, 1, 1)
        old, trials = state.trial.update.state, []
        for factor in (torch.zeros_like(share), share):
            strain = state.trial.mean_strain + factor * state.strained
            strain = torch.where(driven, target.unsqueeze(1), strain)
            moved = factor.view(-1, *[1] * (state.moved.ndim - 1)) * state.moved
            displacement = state.trial.displacement + moved
            trials.append(evaluate(system, self.law, old, target, displacement, strain))
        still, moving = (potential(system, self.law, target, trial) for trial in trials)
        better = (moving < still).nonzero().flatten()
        return replaced(trials[0], better, picked(trials[1], better))

    def _after(
        self,
        state: Equilibrium,
        trial: Trial,
        target: Tensor,
        strain_driven: Bool[Tensor, " n"],
        record: NewtonRecord,
    ) -> Equilibrium:
        """Return the new equilibrium with the sums over the path carried on."""
        before, problem = state.trial, self.problem
        strained = trial.mean_strain - before.mean_strain
        pull = 0.5 * (mean_stress(problem, before) + mean_stress(problem, trial))
        stress = 0.5 * (before.update.stress + trial.update.stress)
        flow = trial.update.state.strain - before.update.state.strain
        return Equilibrium(
            trial,
            trial.displacement - before.displacement,
            strained,
            target - _prescribed(before, problem, strain_driven),
            state.work + (pull * strained[:, 0]).sum(1),
            state.plastic_work + (stress * flow).sum(2).flatten(1).mean(1),
            torch.maximum(state.largest, trial.scale),
            state.newton + record.newton,
            state.cg + record.cg,
            state.substeps + 1,
        )

    def _told(self, record: NewtonRecord, failed: Tensor, step: int, halvings: int) -> str:
        worst = [f"{float(norms[failed].max()):.2g}" for norms in record.history]
        return (
            f"step {step + 1} (counted from 1) has no equilibrium to {self.settings.tolerance:g} "
            f"after {halvings} halvings; residuals of its last Newton iterations: "
            f"{', '.join(worst)}; take more steps, raise max_newton, max_iterations or "
            "max_halvings, or keep prescribed stresses below the limit load"
        )


def mean_stress(problem: NodalElasticity, trial: Trial) -> Float[Tensor, "batch n"]:
    """Return the mean of the stress in GPa."""
    return problem.mean(in_plane(trial.update.stress))[:, 0]


def _prescribed(
    trial: Trial, problem: NodalElasticity, strain_driven: Bool[Tensor, " n"]
) -> Float[Tensor, "batch n"]:
    """Return a state's own mean strains and stresses, in the places of the targets."""
    return torch.where(strain_driven, trial.mean_strain[:, 0], mean_stress(problem, trial))

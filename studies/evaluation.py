"""One evaluation: process and code to a structure, its properties and its gate score.

Stiffness climbs a ladder: the surrogate's value counts where its guaranteed bracket is narrow
enough, else the solver answers. A surrogate's value is told with its bracket, a solver's as a
number, so that the study's journal says which rung was used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures import DataError, Microstructure
from microstructures.seeds import derive_seed
from optimize import Estimate
from optimize.design_space import LATENT
from physics import effective_conductivity, effective_stiffness
from studies.models import Models, conductivities, elastic_materials, make_simulator
from studies.settings import DesignSettings

C11, CONDUCTIVITY = "c11_gpa", "conductivity_w_mk"
GATE, FAMILY = "gate", "family_mean_"
PROPERTY_LABELS = {
    C11: "C11, plane strain (GPa)",
    CONDUCTIVITY: "conductivity along direction 1 (W/(m K))",
}
SEARCH_TOLERANCE, CONFIRM_TOLERANCE = 1e-4, 1e-6
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates points of the design space with given models and materials."""

    models: Models
    settings: DesignSettings

    @property
    def targets(self) -> dict[str, float]:
        """Wanted value of each property that is not left free.

        Raises:
            DataError: All are free.
        """
        wanted = {
            C11: self.settings.target_c11_gpa,
            CONDUCTIVITY: self.settings.target_conductivity_w_mk,
        }
        targets = {name: value for name, value in wanted.items() if value is not None}
        if not targets:
            raise DataError(
                "expected target_c11_gpa or target_conductivity_w_mk, got neither; give one"
            )
        return targets

    def check(self) -> None:
        """Refuse settings that the models do not fit, before anything is written.

        Raises:
            DataError: Targets, materials, shape, gate or simulator do not fit.
        """
        generator = self.models.generator
        names = generator.phase_names
        elastic_materials(self.settings, len(names))
        conductivities(self.settings, len(names))
        if not all(generator.periodic):
            raise DataError(
                "expected a generator of periodic cells for a design by periodic solvers, got one "
                f"with periodic = {generator.periodic}; use `mesoforge generate` with it instead"
            )
        sides, multiple = self.settings.shape, generator.size_multiple
        if len(sides) != len(generator.periodic) or any(s % multiple for s in sides):
            raise DataError(
                f"expected shape with {len(generator.periodic)} sides that are multiples of "
                f"{multiple}, got {sides}; change shape"
            )
        self.models.surrogate.check_shape(sides)
        self._check_gate()
        self._check_simulator()
        _ = self.targets

    def _check_gate(self) -> None:
        generator, gate = self.models.generator, self.models.gate
        ours = (len(generator.phase_names), generator.voxel_size_um)
        theirs = (gate.curves.n_phases, gate.voxel_size_um)
        if ours != theirs:
            raise DataError(
                f"expected a gate of the generator's phases and voxel size (um) {ours}, got one "
                f"of {theirs}; fit the gate on the generator's own data"
            )
        if any(s < least for s, least in zip(self.settings.shape, gate.shape, strict=True)):
            raise DataError(
                f"expected shape to be at least {gate.shape}, the gate's samples, got "
                f"{self.settings.shape}; use a larger shape, or fit a gate on smaller cells"
            )
        for corner in (0.0, 1.0):
            process = generator.space.from_unit([corner] * len(generator.space))
            try:
                gate.space.to_unit(process)
            except DataError as error:
                raise DataError(
                    f"the gate does not know the generator's process: {error}"
                ) from None

    def _check_simulator(self) -> None:
        if self.settings.simulator == "none":
            return
        generator, simulator = self.models.generator, make_simulator(self.settings.simulator)
        known = simulator.space.names
        if known != generator.space.names:
            raise DataError(
                f"expected a simulator of {', '.join(generator.space.names)}, the generator's "
                f"parameters, got one of {', '.join(known)}; choose another simulator, or none"
            )
        if simulator.voxel_size_um != generator.voxel_size_um:
            raise DataError(
                f"expected a simulator with voxels of {generator.voxel_size_um:g} um, as the "
                f"generator has, got {simulator.voxel_size_um:g}; choose none as simulator"
            )

    def structure(self, parameters: Parameters) -> Microstructure:
        """Return the structure of a point: its noise is that of the seed's first sample."""
        process = {name: value for name, value in parameters.items() if name != LATENT}
        (structure,) = self.models.generator.sample(
            process,
            n=1,
            shape=self.settings.shape,
            seed=self.settings.seed,
            latent=parameters.get(LATENT),
        )
        return structure

    def values(self, parameters: Parameters) -> dict[str, float | Estimate]:
        """Return the target properties and the gate score of one point of the design space."""
        structure = self.structure(parameters)
        phases = as_batch([structure])
        values: dict[str, float | Estimate] = {}
        if C11 in self.targets:
            values[C11] = self._stiffness(phases)
        if CONDUCTIVITY in self.targets:
            solved = self.conductivity(phases, tolerance=SEARCH_TOLERANCE)
            values[CONDUCTIVITY] = float(solved.value[0, 0, 0])
        values[GATE] = float(self.gate_scores(phases, structure.process)[0])
        if self.settings.family_draws:
            values |= self.family_means(structure.process)
        return values

    @property
    def constraints(self) -> dict[str, tuple[float | None, float | None]]:
        """What a trial must keep to: the gate, and a process that is near the targets on average.

        A structure at the edge of its family may hit a target that its process misses by far;
        the means keep the search where the process itself leads to the targets.
        """
        limits: dict[str, tuple[float | None, float | None]] = {GATE: (None, 1.0)}
        if self.settings.family_draws:
            slack = self.settings.family_tolerance
            for name, target in self.targets.items():
                limits[FAMILY + name] = ((1 - slack) * target, (1 + slack) * target)
        return limits

    def passes(self, values: Mapping[str, Any]) -> bool:
        """Return whether the values of a trial keep to all constraints."""
        return all(
            (low is None or float(values[name]) >= low)
            and (high is None or float(values[name]) <= high)
            for name, (low, high) in self.constraints.items()
        )

    def family_means(self, process: Mapping[str, Any]) -> dict[str, float]:
        """Return the mean of each target property over further draws of a process.

        The noise and codes of these draws are the same for every process, so that differences
        between processes are not the luck of the draw.
        """
        draws = self.models.generator.sample(
            dict(process),
            n=self.settings.family_draws,
            shape=self.settings.shape,
            seed=derive_seed(self.settings.seed, "family of a trial"),
        )
        solved = self.solved(as_batch(draws), tolerance=SEARCH_TOLERANCE)
        return {FAMILY + name: float(values.mean()) for name, values in solved.items()}

    def stiffness(self, phases: Tensor, *, tolerance: float) -> Any:
        """Return the solver's effective stiffness of a batch of structures, in GPa."""
        materials = elastic_materials(self.settings, len(self.models.generator.phase_names))
        return effective_stiffness(phases, materials, tolerance=tolerance)

    def conductivity(self, phases: Tensor, *, tolerance: float) -> Any:
        """Return the solver's effective conductivity of a batch of structures, in W/(m K)."""
        values = conductivities(self.settings, len(self.models.generator.phase_names))
        return effective_conductivity(phases, values, tolerance=tolerance)

    def solved(self, phases: Tensor, *, tolerance: float) -> dict[str, np.ndarray]:
        """Return the target properties of a batch by the solver, name to `(batch,)`."""
        values = {}
        if C11 in self.targets:
            values[C11] = self.stiffness(phases, tolerance=tolerance).value[:, 0, 0].numpy()
        if CONDUCTIVITY in self.targets:
            solved = self.conductivity(phases, tolerance=tolerance)
            values[CONDUCTIVITY] = solved.value[:, 0, 0].numpy()
        return values

    def gate_scores(self, phases: Tensor, process: Mapping[str, Any]) -> Tensor:
        """Return the gate score of structures of one process point, `(batch,)`; pass is <= 1."""
        return self.models.gate.score(phases, process)

    def _stiffness(self, phases: Tensor) -> float | Estimate:
        materials = elastic_materials(self.settings, len(self.models.generator.phase_names))
        guess = self.models.surrogate.predict(phases, materials)
        assert guess.lower is not None
        assert guess.upper is not None
        value, lower, upper = (
            float(matrix[0, 0, 0]) for matrix in (guess.effective, guess.lower, guess.upper)
        )
        if upper - lower <= self.settings.bracket_tolerance * abs(value):
            return Estimate(value, lower, upper, "discrete")
        return float(self.stiffness(phases, tolerance=SEARCH_TOLERANCE).value[0, 0, 0])


def as_batch(structures: Sequence[Microstructure]) -> Tensor:
    """Return the labels of structures of one shape as a tensor `(batch, *space)`."""
    return torch.stack([torch.from_numpy(np.array(s.phases)) for s in structures])


def relative_misses(values: Mapping[str, Any], targets: Mapping[str, float]) -> dict[str, float]:
    """Return |value - target| / target by property."""
    return {name: abs(float(values[name]) / t - 1) for name, t in targets.items()}


def combined_miss(values: Mapping[str, Any], targets: Mapping[str, float]) -> float:
    """Return the root of the summed squared relative misses, by which the study ranks."""
    return float(np.sqrt(sum(m**2 for m in relative_misses(values, targets).values())))

"""J2 plasticity at material points: return mapping, incremental energy and consistent tangent.

Fields are `(batch, load, component, *points, *space)`. A strain that drives the law has the
scheme's n Mandel components, (11, 22, √2·12) in 2-D, which is plane strain. Stress and plastic
strain are kept whole, with m components: (11, 22, 33, √2·12) in 2-D, all six in 3-D. Either way the
first three of a whole tensor are its normal components, so that one code serves both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from physics.mechanics.hardening import ElasticPlastic, YieldCurve, plastic_increment
from physics.mechanics.materials import phase_field


@dataclass(frozen=True)
class PlasticState:
    """Internal variables: plastic strain (whole tensor) and equivalent plastic strain p."""

    strain: Float[Tensor, "batch load m *points"]
    equivalent: Float[Tensor, "batch load *points"]


@dataclass(frozen=True)
class ConsistentTangent:
    """d stress / d strain of the return mapping, on the strain's own components.

    C : e = K tr(e) 1 + 2 G theta dev(e) - 2 G theta' n (n : e) (Simo and Taylor 1985,
    doi:10.1016/0045-7825(85)90070-2), stored as `volumetric` = K - 2 G theta / 3, `deviatoric` =
    2 G theta, `softening` = 2 G theta' and the in-plane part of the flow `direction` n. In plane
    strain e_33 = 0, so that the same formula holds.
    """

    volumetric: Float[Tensor, "batch load *points"]
    deviatoric: Float[Tensor, "batch load *points"]
    softening: Float[Tensor, "batch load *points"]
    direction: Float[Tensor, "batch load n *points"]

    def __call__(self, strain: Tensor) -> Tensor:
        """Return C : strain in GPa, `(batch, load, n, *points)`."""
        dim = 2 if strain.shape[2] == 3 else 3
        along = (self.direction * strain).sum(2).mul_(self.softening)
        pressure = strain[:, :, :dim].sum(2).mul_(self.volumetric)
        stress = self.deviatoric.unsqueeze(2) * strain
        stress.addcmul_(self.direction, along.unsqueeze(2), value=-1.0)
        stress[:, :, :dim].add_(pressure.unsqueeze(2))
        return stress

    def select(self, keep: Tensor) -> "ConsistentTangent":
        """Return the tangent of some of the samples."""
        return ConsistentTangent(*[getattr(self, entry.name)[keep] for entry in fields(self)])


@dataclass(frozen=True)
class PlasticUpdate:
    """What a strain makes of a state: the whole stress in GPa, the state after it, the tangent."""

    stress: Float[Tensor, "batch load m *points"]
    state: PlasticState
    tangent: ConsistentTangent


@dataclass(frozen=True)
class PlasticLaw:
    """The law of every point: moduli `(batch, load=1, *points=1, *space)`, labels, yield curves.

    `curves` has one entry per phase, None for a phase that stays elastic. A new kind of hardening
    needs the three methods of `YieldCurve` and nothing else.
    """

    bulk: Float[Tensor, "batch 1 *space"]
    shear: Float[Tensor, "batch 1 *space"]
    phase: Int[Tensor, "batch 1 *space"]
    curves: tuple[YieldCurve | None, ...]

    @classmethod
    def of_voxels(
        cls,
        phases: Int[Tensor, "batch *space"],
        materials: Sequence[ElasticPlastic],
        points: tuple[int, ...] = (),
    ) -> "PlasticLaw":
        """Return the law of labelled voxels with the given axes of quadrature points."""
        lead = (slice(None), None, *[None] * len(points))
        return cls(
            phase_field(phases, [material.elastic.bulk for material in materials])[lead],
            phase_field(phases, [material.elastic.shear for material in materials])[lead],
            phases[lead],
            tuple(material.hardening for material in materials),
        )

    def select(self, keep: Tensor | slice) -> "PlasticLaw":
        """Return the law of some of the samples."""
        return replace(self, bulk=self.bulk[keep], shear=self.shear[keep], phase=self.phase[keep])

    def virgin_state(self, strain: Float[Tensor, "batch load n *points"]) -> PlasticState:
        """Return the state without any plastic strain, for strains like the given one."""
        nothing = torch.zeros_like(whole(strain))
        return PlasticState(nothing, torch.zeros_like(nothing[:, :, 0]))

    def update(
        self, strain: Float[Tensor, "batch load n *points"], old: PlasticState
    ) -> PlasticUpdate:
        """Return the stress and state at a total strain, by the implicit radial return.

        With the trial stress s = 2 G dev(strain - plastic strain), q = sqrt(3/2) |s| and
        n = s / |s|: where q exceeds the flow stress, q - 3 G dp = sigma_y(p + dp) and the plastic
        strain grows by sqrt(3/2) dp n (Wilkins 1964; Simo and Hughes 1998, doi:10.1007/b98904).
        The step is exact where n keeps its direction.
        """
        elastic = whole(strain) - old.strain
        trace = elastic[:, :, :3].sum(2)
        twice_shear = 2.0 * self.shear
        trial = _less_mean(elastic, trace) * twice_shear.unsqueeze(2)
        size = torch.linalg.vector_norm(trial, dim=2)
        dp, slope = self._increments(size * 1.5**0.5, old.equivalent)
        direction = trial / size.clamp_min(torch.finfo(size.dtype).tiny).unsqueeze(2)
        flow = (1.5**0.5 * dp).unsqueeze(2) * direction
        stress = trial - twice_shear.unsqueeze(2) * flow
        stress[:, :, :3] += (self.bulk * trace).unsqueeze(2)
        state = PlasticState(old.strain + flow, old.equivalent + dp)
        return PlasticUpdate(stress, state, self._tangent(direction, size, dp, slope))

    def energy(
        self, strain: Float[Tensor, "batch load n *points"], update: PlasticUpdate
    ) -> Float[Tensor, "batch load *points"]:
        """Return the incremental energy in GPa: stored elastically plus the yield curve's integral.

        As a function of the strain, at a fixed old state, it is convex and its derivative is the
        stress of `update` (Ortiz and Stainier 1999, doi:10.1016/S0045-7825(98)00219-9): the
        return mapping minimises it over the plastic strain.
        """
        return self.elastic_energy(strain, update) + self.plastic_energy(update.state)

    def elastic_energy(
        self, strain: Float[Tensor, "batch load n *points"], update: PlasticUpdate
    ) -> Float[Tensor, "batch load *points"]:
        """Return stress : elastic strain / 2 in GPa."""
        return 0.5 * (update.stress * (whole(strain) - update.state.strain)).sum(2)

    def plastic_energy(self, state: PlasticState) -> Float[Tensor, "batch load *points"]:
        """Return the integral of each point's flow stress up to its p, in GPa."""
        total = torch.zeros_like(state.equivalent)
        for mask, curve in self._plastic_phases(total):
            total[mask] = curve.energy(state.equivalent[mask])
        return total

    def dissipation(self, state: PlasticState) -> Float[Tensor, "batch load *points"]:
        """Return each point's initial yield stress times p, in GPa."""
        total = torch.zeros_like(state.equivalent)
        for mask, curve in self._plastic_phases(total):
            p = state.equivalent[mask]
            total[mask] = curve.flow_stress(torch.zeros_like(p)) * p
        return total

    def flow_stress(self, state: PlasticState) -> Float[Tensor, "batch load *points"]:
        """Return each point's flow stress in GPa, infinite in elastic phases."""
        total = torch.full_like(state.equivalent, torch.inf)
        for mask, curve in self._plastic_phases(total):
            total[mask] = curve.flow_stress(state.equivalent[mask])
        return total

    def _increments(self, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return dp, and the slope of the yield curve after it (infinite where dp = 0)."""
        dp, slope = torch.zeros_like(q), torch.full_like(q, torch.inf)
        shear = self.shear.expand_as(q)
        for mask, curve in self._plastic_phases(q):
            yields = mask.clone()
            yields[mask] = q[mask] > curve.flow_stress(p[mask])
            before = p[yields]
            found = plastic_increment(curve, q[yields], before, shear[yields])
            dp[yields] = found
            slope[yields] = curve.slope(before + found)
        return dp, slope

    def _plastic_phases(self, like: Tensor) -> list[tuple[Bool[Tensor, "*points"], YieldCurve]]:
        phase = self.phase.expand_as(like)
        return [(phase == k, curve) for k, curve in enumerate(self.curves) if curve is not None]

    def _tangent(
        self, direction: Tensor, size: Tensor, dp: Tensor, slope: Tensor
    ) -> ConsistentTangent:
        stiffness = 3.0 * self.shear
        # The trial stress falls by this share; 0/0 only where a pore carries nothing.
        share = torch.nan_to_num(stiffness * dp / (1.5**0.5 * size))
        deviatoric = 2.0 * self.shear * (1.0 - share)
        softening = 2.0 * self.shear * (stiffness / (stiffness + slope) - share)
        return ConsistentTangent(
            (self.bulk - deviatoric / 3.0), deviatoric, softening, in_plane(direction)
        )


def whole(strain: Float[Tensor, "batch load n *points"]) -> Float[Tensor, "batch load m *points"]:
    """Return a strain with its out-of-plane component, 0 in plane strain."""
    if strain.shape[2] == 6:
        return strain
    return torch.cat((strain[:, :, :2], torch.zeros_like(strain[:, :, :1]), strain[:, :, 2:]), 2)


def in_plane(
    tensor: Float[Tensor, "batch load m *points"],
) -> Float[Tensor, "batch load n *points"]:
    """Return the components that a 2-D scheme knows of a whole tensor; all of them in 3-D."""
    if tensor.shape[2] == 6:
        return tensor
    return torch.cat((tensor[:, :, :2], tensor[:, :, 3:]), 2)


def von_mises(stress: Float[Tensor, "batch load m *points"]) -> Float[Tensor, "batch load *points"]:
    """Return the equivalent stress sqrt(3/2) |dev stress| of a whole stress."""
    deviator = _less_mean(stress, stress[:, :, :3].sum(2))
    return 1.5**0.5 * torch.linalg.vector_norm(deviator, dim=2)


def _less_mean(tensor: Tensor, trace: Tensor) -> Tensor:
    normal = tensor[:, :, :3] - (trace / 3.0).unsqueeze(2)
    return torch.cat((normal, tensor[:, :, 3:]), 2)

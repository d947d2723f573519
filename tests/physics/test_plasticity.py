"""Elastic-plastic cells: closed-form curves, laminates, energy balance, bounds, invariances."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, root

from microstructures import ConvergenceError, DataError
from physics.mechanics import (
    IsotropicElastic,
    effective_stiffness,
    equilibrium,
    load_stepping,
    solve_elasticity,
)
from physics.mechanics.discretisation import elastic_problem
from physics.mechanics.equilibrium import (
    MixedSystem,
    NewtonSettings,
    equilibrate,
    evaluate,
    potential,
)
from physics.mechanics.hardening import ElasticPlastic, LinearHardening, PowerHardening
from physics.mechanics.loading_path import LoadingPath
from physics.mechanics.plasticity import solve_plasticity
from physics.mechanics.radial_return import PlasticLaw, von_mises

SCHEMES = ["rotated", "q1"]
SHEAR = {2: 2, 3: 5}


def phase(young: float, nu: float, sy: float | None = None, hard: float = 0.0) -> ElasticPlastic:
    elastic = IsotropicElastic(youngs_modulus_gpa=young, poisson_ratio=nu)
    if sy is None:
        return ElasticPlastic(elastic=elastic)
    curve = LinearHardening(yield_stress_gpa=sy, modulus_gpa=hard)
    return ElasticPlastic(elastic=elastic, hardening=curve)


SOFT, HARD = phase(70.0, 0.33, 0.1, 1.0), phase(210.0, 0.3, 0.4, 3.0)
SINGLE = phase(200.0, 0.3, 0.3, 2.0)


def noise(*shape: int, phases: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(phases, shape, generator=torch.Generator().manual_seed(seed))


def layers(*space: int, fraction: float = 0.5) -> torch.Tensor:
    """Phase 1 in the last part of axis 0."""
    cell = torch.zeros(1, *space, dtype=torch.long)
    cell[:, space[0] - round(fraction * space[0]) :] = 1
    return cell


def uniform(dim: int) -> torch.Tensor:
    return torch.zeros(1, *[3, 2, 2][:dim], dtype=torch.long)


def flow_of(material: ElasticPlastic) -> tuple[float, float]:
    assert isinstance(material.hardening, LinearHardening)
    return material.hardening.yield_stress_gpa, material.hardening.modulus_gpa


# One phase: closed forms


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_uniaxial_curve_of_linear_hardening(scheme):
    young, (sy, hard) = 200.0, flow_of(SINGLE)
    path = LoadingPath.uniaxial(strain=(0.01, 0.008, 0.02), steps=4)
    test = solve_plasticity(uniform(3), [SINGLE], path, scheme=scheme, tolerance=1e-11)
    strain = path.targets[:, 0]
    first = sy + hard * young / (young + hard) * (strain - sy / young)
    exact = torch.minimum(young * strain, first)
    # From the turning point on, elastic until the curve is met again.
    exact[4:] = torch.minimum(exact[3] + young * (strain[4:] - strain[3]), first[4:])
    assert float((test.mean_stress[0, :, 0] / exact - 1.0).abs().max()) < 1e-8
    assert float(test.mean_stress[0, :, 1:].abs().max()) < 1e-9
    # Lateral contraction: elastic part -nu sigma/E, plastic part incompressible.
    lateral = -0.3 * exact / young - 0.5 * (strain - exact / young)
    assert float((test.mean_strain[0, :, 1] - lateral).abs().max()) < 1e-11
    p = (exact[-1] - sy) / hard
    assert float((test.equivalent_plastic_strain - p).abs().max()) < 1e-10


def test_the_uniaxial_curve_of_power_hardening():
    elastic = IsotropicElastic(youngs_modulus_gpa=200.0, poisson_ratio=0.3)
    curve = PowerHardening(yield_stress_gpa=0.25, strength_gpa=0.5, exponent=0.2)
    material = ElasticPlastic(elastic=elastic, hardening=curve)
    path = LoadingPath.uniaxial(strain=0.03, steps=6, axis=2)
    test = solve_plasticity(uniform(3), [material], path, tolerance=1e-11)

    def stress(strain: float) -> float:
        if 200.0 * strain <= 0.25:
            return 200.0 * strain
        root_of = brentq(
            lambda p: 0.25 + 0.5 * p**0.2 + 200.0 * (p - strain), 1e-6, strain, xtol=1e-16
        )
        return 200.0 * (strain - root_of)

    exact = torch.tensor([stress(e) for e in path.targets[:, 2].tolist()], dtype=torch.float64)
    assert float((test.mean_stress[0, :, 2] / exact - 1.0).abs().max()) < 1e-8


def plane_strain_tension(strains: np.ndarray) -> np.ndarray:
    """Implicit Euler on scalars: unknown (s11, s33, dp) with s22 = 0 and e33 = 0, step by step.

    e11 = (s11 - nu s33)/E + f11, 0 = (s33 - nu s11)/E + f33, and the flow df = dp 3/2 dev(s) / q.
    """
    young, nu, (sy, hard) = 200.0, 0.3, flow_of(SINGLE)
    flow, p, curve = np.zeros(2), 0.0, []

    def equations(x: np.ndarray, strain: float, plastic: bool) -> np.ndarray:
        s1, s3, dp = x
        q = np.sqrt(s1**2 + s3**2 - s1 * s3)
        rate = 1.5 / q * (np.array([s1, s3]) - (s1 + s3) / 3.0) * dp
        f1, f3 = flow + rate
        last = q - sy - hard * (p + dp) if plastic else dp
        return np.array([s1 - nu * s3 + young * (f1 - strain), s3 - nu * s1 + young * f3, last])

    for strain in strains:
        elastic = young * (strain - flow[0]) / (1.0 - nu**2)
        guess = np.array([elastic, nu * elastic, 0.0])
        guess[:2] *= min(1.0, (sy + hard * p) / (0.9 * elastic))
        found = root(equations, guess, args=(strain, False), tol=1e-14).x
        if found[0] ** 2 + found[1] ** 2 - found[0] * found[1] > (sy + hard * p) ** 2:
            found = root(equations, guess, args=(strain, True), tol=1e-14).x
        s1, s3, dp = found
        q = np.sqrt(s1**2 + s3**2 - s1 * s3)
        flow = flow + 1.5 / q * (np.array([s1, s3]) - (s1 + s3) / 3.0) * dp
        p += dp
        curve.append([s1, s3, p])
    return np.array(curve)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_plane_strain_tension_equals_a_scalar_integration(scheme):
    path = LoadingPath.uniaxial(strain=0.01, steps=6, dim=2)
    test = solve_plasticity(uniform(2), [SINGLE], path, scheme=scheme, tolerance=1e-11)
    exact = torch.from_numpy(plane_strain_tension(path.targets[:, 0].numpy()))
    assert float((test.mean_stress[0, :, 0] / exact[:, 0] - 1.0).abs().max()) < 1e-8
    assert float((test.mean_stress_33[0] / exact[:, 1] - 1.0).abs().max()) < 1e-8
    assert float((test.equivalent_plastic_strain / exact[-1, 2] - 1.0).abs().max()) < 1e-8
    assert float(test.mean_stress[0, :, 1:].abs().max()) < 1e-9
    assert float(test.stress[0, 2].min()) > 0.1


def test_plane_strain_tension_converges_to_the_rate_equations():
    young, nu, (sy, hard) = 200.0, 0.3, flow_of(SINGLE)
    onset = sy * (1.0 - nu**2) / young / np.sqrt(1.0 + nu**2 - nu)

    def rates(_: float, y: np.ndarray) -> np.ndarray:
        s1, s3, _p = y
        q = np.sqrt(s1**2 + s3**2 - s1 * s3)
        n = 1.5 / q * (np.array([s1, s3]) - (s1 + s3) / 3.0)
        slope = np.array([[1.0, -nu, young * n[0]], [-nu, 1.0, young * n[1]], [0.0, 0.0, -hard]])
        slope[2, :2] = (2.0 * s1 - s3) / (2.0 * q), (2.0 * s3 - s1) / (2.0 * q)
        return np.linalg.solve(slope, np.array([young, 0.0, 0.0]))

    stress = young / (1.0 - nu**2) * onset
    start = np.array([stress, nu * stress, 0.0])
    exact = solve_ivp(rates, (onset, 0.003), start, rtol=1e-11, atol=1e-13).y[0, -1]
    misses = []
    for steps in (10, 20):
        path = LoadingPath.uniaxial(strain=0.003, steps=steps, dim=2)
        test = solve_plasticity(uniform(2), [SINGLE], path, tolerance=1e-9)
        misses.append(abs(float(test.mean_stress[0, -1, 0]) / exact - 1.0))
    assert misses[-1] < 1e-3
    assert 0.9 < np.log2(misses[0] / misses[1]) < 1.1, misses


# Laminates


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_sheared_along_their_planes_share_the_strain(scheme):
    """Shear 23, layers normal to 1: pure shear in each layer, q = sqrt(3) tau, p = g_p/sqrt(3)."""
    path = LoadingPath.proportional([[0, 0, 0, 0.02, 0, 0]], steps=4)
    cell = layers(5, 2, 3, fraction=0.4)
    test = solve_plasticity(cell, [SOFT, HARD], path, scheme=scheme, tolerance=1e-11)
    gamma = path.targets[:, 3] * 2.0**0.5
    exact = torch.zeros_like(gamma)
    for material, share in ((SOFT, 0.6), (HARD, 0.4)):
        sy, hard = flow_of(material)
        shear, yields = material.elastic.shear, sy / 3.0**0.5
        tangent = shear * hard / (3.0 * shear + hard)
        onset = yields / shear
        plastic = yields + tangent * (gamma - onset)
        exact += share * torch.where(gamma < onset, shear * gamma, plastic)
    assert float((test.mean_stress[0, :, 3] / 2.0**0.5 / exact - 1.0).abs().max()) < 1e-8


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_sheared_across_share_the_traction(scheme, dim):
    """Shear 12, layers normal to 1: one tau, the strain is the mean of the layers' strains."""
    n = dim * (dim + 1) // 2
    last = [0.0] * n
    last[SHEAR[dim]] = 0.02
    path = LoadingPath.proportional([last], steps=4)
    cell = layers(*[5, 2, 3][:dim], fraction=0.4)
    test = solve_plasticity(cell, [SOFT, HARD], path, scheme=scheme, tolerance=1e-11)

    def strain(tau: float) -> float:
        total = 0.0
        for material, share in ((SOFT, 0.6), (HARD, 0.4)):
            sy, hard = flow_of(material)
            excess = max(0.0, 3.0**0.5 * tau - sy)
            total += share * (tau / material.elastic.shear + 3.0**0.5 * excess / hard)
        return total

    gammas = (path.targets[:, SHEAR[dim]] * 2.0**0.5).tolist()
    exact = [brentq(lambda t, g=g: strain(t) - g, 0.0, 1.0, xtol=1e-15) for g in gammas]
    tau = test.mean_stress[0, :, SHEAR[dim]] / 2.0**0.5
    assert float((tau / torch.tensor(exact, dtype=tau.dtype) - 1.0).abs().max()) < 1e-8
    # Only the weaker layer flows, and it takes nearly all of the strain.
    p = test.equivalent_plastic_strain[0]
    assert float(p[:3].min()) > 0.015
    assert float(p[3:].max()) == 0.0


def laminate_tension(strains: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """Two layers normal to 1 pulled along 2, plane strain: an own radial return on 3 x 3 tensors.

    Unknown: e11 of each layer; e22 common and given, e33 = 0, s11 the same (zero) in both.
    """
    materials = (SOFT, HARD)
    flows, ps, curve = [np.zeros((3, 3)), np.zeros((3, 3))], [0.0, 0.0], []

    def layer(k: int, e11: float, e22: float) -> tuple[np.ndarray, np.ndarray, float]:
        elastic, (sy, hard) = materials[k].elastic, flow_of(materials[k])
        strain = np.diag([e11, e22, 0.0]) - flows[k]
        trace = np.trace(strain)
        s = 2.0 * elastic.shear * (strain - trace / 3.0 * np.eye(3))
        q = np.sqrt(1.5 * np.sum(s * s))
        dp = max(0.0, q - sy - hard * ps[k]) / (3.0 * elastic.shear + hard)
        step = 1.5 * dp * s / q
        stress = s - 2.0 * elastic.shear * step + elastic.bulk * trace * np.eye(3)
        return stress, flows[k] + step, ps[k] + dp

    for e22 in strains:
        e11 = [
            brentq(lambda e, k=k, f=e22: layer(k, e, f)[0][0, 0], -0.1, 0.1, xtol=1e-16)
            for k in range(2)
        ]
        now = [layer(k, e11[k], e22) for k in range(2)]
        flows, ps = [flow for _, flow, _ in now], [p for *_, p in now]
        stress = sum(share * s for share, (s, *_) in zip(shares, now, strict=True))
        curve.append([stress[1, 1], stress[2, 2], np.dot(shares, e11)])
    return np.array(curve)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_pulled_along_their_planes(scheme):
    path = LoadingPath.uniaxial(strain=(0.015, 0.005), steps=3, dim=2, axis=1)
    cell = layers(5, 3, fraction=0.4)
    test = solve_plasticity(cell, [SOFT, HARD], path, scheme=scheme, tolerance=1e-11)
    exact = torch.from_numpy(laminate_tension(path.targets[:, 1].numpy(), (0.6, 0.4)))
    assert float((test.mean_stress[0, :, 1] - exact[:, 0]).abs().max()) < 1e-8
    assert float((test.mean_stress_33[0] - exact[:, 1]).abs().max()) < 1e-8
    assert float((test.mean_strain[0, :, 0] - exact[:, 2]).abs().max()) < 1e-10


# Energies


@pytest.mark.parametrize(("scheme", "space"), [("rotated", (4, 4)), ("q1", (3, 2, 2))])
def test_work_is_stored_elastically_or_spent_on_flow(scheme, space):
    path = LoadingPath.uniaxial(strain=(0.01, 0.004), steps=2, dim=len(space))
    test = solve_plasticity(noise(2, *space), [SOFT, HARD], path, scheme=scheme, tolerance=1e-11)
    miss = test.work - test.elastic_energy - test.plastic_work
    assert float((miss / test.work).abs().max()) < 1e-9
    assert float(test.dissipation.diff(dim=1).min()) >= 0.0
    assert float(test.hardening_energy.diff(dim=1).min()) >= 0.0
    by_hand = 0.5 * (test.mean_stress[:, :1] * test.mean_strain[:, :1]).sum(2)[:, 0]
    assert torch.allclose(test.work[:, 0], by_hand, rtol=1e-12)


def test_flow_is_dissipated_or_hardens_in_the_limit_of_small_steps():
    cell = layers(2, 2)
    misses = []
    for steps in (5, 20):
        path = LoadingPath.uniaxial(strain=0.01, steps=steps, dim=2)
        test = solve_plasticity(cell, [SOFT, HARD], path, tolerance=1e-7)
        miss = test.plastic_work - test.dissipation - test.hardening_energy
        misses.append(float((miss / test.work)[0, -1].abs()))
    assert misses[1] < 5e-3
    assert np.log2(misses[0] / misses[1]) / 2.0 > 0.9, misses


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_step_lies_between_uniform_strain_and_uniform_stress(scheme):
    """Energy of a strain: at most that of the uniform strain; at least S : E - <W*(S)>, any S.

    W* of linear hardening is S : C^-1 : S / 2 + max(0, q(S) - sy)^2 / (2 H).
    """
    cell = noise(3, 4, 4, seed=1)
    loads = torch.tensor([[0.01, -0.002, 0.003]], dtype=torch.float64)
    path = LoadingPath(loads, torch.ones(1, 3, dtype=torch.bool))
    test = solve_plasticity(cell, [SOFT, HARD], path, scheme=scheme, tolerance=1e-9)
    energy = (test.elastic_energy + test.hardening_energy + test.dissipation)[:, 0]
    law = PlasticLaw.of_voxels(cell, [SOFT, HARD])
    strain = loads.view(1, 1, 3, 1, 1).expand(3, 1, 3, 4, 4)
    taylor = law.energy(strain, law.update(strain, law.virgin_state(strain))).flatten(1).mean(1)
    assert (energy < taylor * 0.99).all()
    share = cell.double().flatten(1).mean(1)
    for s33 in (0.8, 1.0, 1.2):
        stress = torch.stack(
            (
                test.mean_stress[:, 0, 0],
                test.mean_stress[:, 0, 1],
                s33 * test.mean_stress_33[:, 0],
                test.mean_stress[:, 0, 2],
            ),
            1,
        )
        dual = torch.zeros_like(energy)
        for material, part in ((SOFT, 1.0 - share), (HARD, share)):
            sy, hard = flow_of(material)
            full = torch.linalg.inv(material.elastic.stiffness(3))
            places = [0, 1, 2, 5]
            compliance = full[places][:, places]
            q = von_mises(stress.view(3, 1, 4, 1, 1)).view(3)
            elastic = 0.5 * torch.einsum("bi,ij,bj->b", stress, compliance, stress)
            dual += part * (elastic + (q - sy).clamp_min(0.0) ** 2 / (2.0 * hard))
        lower = (test.mean_stress[:, 0] * loads).sum(1) - dual
        assert (energy > lower).all()


def test_both_schemes_approach_each_other_on_finer_voxels():
    """Discs of the stiff phase; full integration is the stiffer, in plastic flow above all."""
    cell = torch.zeros(1, 6, 6, dtype=torch.long)
    cell[:, 2:4, 1:5] = cell[:, 1:5, 2:4] = 1
    path = LoadingPath.uniaxial(strain=0.006, steps=1, dim=2)
    gaps = []
    for _ in range(2):
        soft, stiff = (
            float(solve_plasticity(cell, [SOFT, HARD], path, scheme=s).mean_stress[0, -1, 0])
            for s in SCHEMES
        )
        gaps.append(stiff / soft - 1.0)
        cell = cell.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert 0.0 < gaps[1] < 0.75 * gaps[0], gaps


# Control of strain and stress


def test_prescribed_means_are_met():
    path = LoadingPath.proportional(
        [[0.004, 0.05, 0.002]], steps=2, strain_driven=[True, False, True]
    )
    test = solve_plasticity(noise(2, 5, 4), [SOFT, HARD], path, tolerance=1e-9)
    assert float((test.mean_strain - path.targets)[:, :, [0, 2]].abs().max()) == 0.0
    assert float((test.mean_stress - path.targets)[:, :, 1].abs().max()) < 1e-9
    assert float((test.strain.flatten(2).mean(2) - test.mean_strain[:, -1]).abs().max()) < 1e-15


def test_strain_and_stress_control_follow_the_same_curve():
    cell, options = noise(1, 4, 4), {"scheme": "q1", "tolerance": 1e-9}
    pulled = LoadingPath.uniaxial(strain=0.006, steps=2, dim=2)
    by_strain = solve_plasticity(cell, [SOFT, HARD], pulled, **options)
    pushed = LoadingPath(by_strain.mean_stress[0], torch.zeros(2, 3, dtype=torch.bool))
    by_stress = solve_plasticity(cell, [SOFT, HARD], pushed, **options)
    assert float((by_stress.mean_strain - by_strain.mean_strain).abs().max()) < 1e-7
    assert float(by_stress.equivalent_plastic_strain.max()) > 0.005


@pytest.mark.parametrize("scheme", SCHEMES)
def test_unloading_follows_the_effective_stiffness(scheme):
    cell = noise(1, 4, 3)
    load = LoadingPath.uniaxial(strain=0.01, steps=2, dim=2)
    back = LoadingPath(torch.tensor([[0.0098, 0.0, 0.0]]), load.strain_driven[:1])
    test = solve_plasticity(cell, [SOFT, HARD], load.then(back), scheme=scheme, tolerance=1e-10)
    elastic = [SOFT.elastic, HARD.elastic]
    stiffness = effective_stiffness(cell, elastic, scheme=scheme, tolerance=1e-7).value[0]
    modulus = 1.0 / torch.linalg.inv(stiffness)[0, 0]
    slope = test.mean_stress[0].diff(dim=0)[-1, 0] / test.mean_strain[0].diff(dim=0)[-1, 0]
    assert float((slope / modulus - 1.0).abs()) < 1e-6
    # Without mean stress, stresses and a permanent strain stay behind.
    free = LoadingPath(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    released = solve_plasticity(cell, [SOFT, HARD], load.then(free), scheme=scheme)
    assert float(released.mean_stress[0, -1].abs().max()) < 1e-5
    assert float(released.mean_strain[0, -1, 0]) > 0.007
    assert float(released.stress.abs().max()) > 0.02


def test_a_path_may_differ_between_samples():
    cell = noise(1, 4, 4).expand(2, 4, 4)
    strong, weak = (LoadingPath.uniaxial(strain=e, steps=2, dim=2) for e in (0.006, 1e-8))
    both = LoadingPath(torch.stack((strong.targets, weak.targets)), strong.strain_driven)
    together = solve_plasticity(cell, [SOFT, HARD], both, tolerance=1e-9)
    for k, path in enumerate((strong, weak)):
        alone = solve_plasticity(cell[:1], [SOFT, HARD], path, tolerance=1e-9)
        assert torch.allclose(alone.mean_stress[0], together.mean_stress[k], rtol=1e-7, atol=1e-9)
    assert int(together.substeps.max()) == 1
    assert float(together.residual.max()) <= 1e-9


# Invariances


@pytest.mark.parametrize(("scheme", "space"), [("rotated", (5, 4)), ("q1", (3, 2, 2))])
def test_a_batch_is_its_samples(scheme, space):
    cells = noise(3, *space, seed=2)
    path = LoadingPath.uniaxial(strain=0.006, steps=2, dim=len(space))
    options = {"scheme": scheme, "tolerance": 1e-9}
    together = solve_plasticity(cells, [SOFT, HARD], path, **options)
    for k in range(3):
        alone = solve_plasticity(cells[k : k + 1], [SOFT, HARD], path, **options)
        for name in ("mean_stress", "mean_strain", "equivalent_plastic_strain", "stress"):
            one, all_of_them = getattr(alone, name)[0], getattr(together, name)[k]
            assert float((one - all_of_them).abs().max()) < 1e-8 * float(one.abs().max())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_prism_is_its_cross_section(scheme):
    flat = noise(1, 4, 3)
    solid = flat.unsqueeze(-1).expand(1, 4, 3, 2)
    pulled = LoadingPath.uniaxial(strain=0.01, steps=2, dim=2)
    targets = torch.zeros(2, 6, dtype=torch.float64)
    driven = torch.tensor([[True, False, True, True, True, False]] * 2)
    targets[:, 0] = pulled.targets[:, 0]
    options = {"scheme": scheme, "tolerance": 1e-10}
    a = solve_plasticity(flat, [SOFT, HARD], pulled, **options)
    b = solve_plasticity(solid, [SOFT, HARD], LoadingPath(targets, driven), **options)
    assert torch.allclose(a.mean_stress, b.mean_stress[:, :, [0, 1, 5]], rtol=1e-8, atol=1e-9)
    assert torch.allclose(a.mean_stress_33, b.mean_stress_33, rtol=1e-8)
    assert torch.allclose(a.stress, b.stress[:, [0, 1, 2, 5], :, :, 1], rtol=1e-6, atol=1e-8)
    p = b.equivalent_plastic_strain[..., 1]
    assert torch.allclose(a.equivalent_plastic_strain, p, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_turning_cell_and_test_together_changes_nothing(scheme):
    cell = noise(1, 4, 3, 2)
    turned = cell.permute(0, 3, 1, 2)
    options = {"scheme": scheme, "tolerance": 1e-9}
    first = [0.006, 0.0, -0.002, 0.001, 0.002, 0.003]
    # Axes (1, 2, 3) become (2, 3, 1): 11 -> 22, 23 -> 31, 12 -> 23.
    second = [first[2], first[0], first[1], first[5], first[3], first[4]]
    a, b = (
        solve_plasticity(c, [SOFT, HARD], LoadingPath.proportional([load], steps=2), **options)
        for c, load in ((cell, first), (turned, second))
    )
    back = b.mean_stress[:, :, [1, 2, 0, 4, 5, 3]]
    assert torch.allclose(a.mean_stress, back, rtol=1e-6, atol=1e-8)
    p = b.equivalent_plastic_strain.permute(0, 2, 3, 1)
    assert torch.allclose(a.equivalent_plastic_strain, p, atol=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_phases_that_never_yield_are_the_linear_solver(scheme):
    cell = noise(2, 5, 4)
    elastic = [SOFT.elastic, HARD.elastic]
    path = LoadingPath.proportional([[0.01, 0.002, -0.004]], steps=2)
    test = solve_plasticity(cell, elastic, path, scheme=scheme, tolerance=1e-9)
    macro = path.targets[-1:].expand(2, 1, 3)
    linear = solve_elasticity(cell, elastic, macro, scheme=scheme, tolerance=1e-10)
    assert torch.allclose(test.stress[:, [0, 1, 3]], linear.stress[:, 0], rtol=1e-6, atol=1e-8)
    assert torch.allclose(test.strain, linear.strain[:, 0], rtol=1e-6, atol=1e-10)
    assert float(test.equivalent_plastic_strain.max()) == 0.0
    assert float(test.dissipation.max()) == 0.0


# The solver


def first_step(cell: torch.Tensor, scheme: str, strain: float):
    """System, law, virgin state and target of an axial strain, and the start without flow."""
    problem = elastic_problem(cell, [SOFT.elastic, HARD.elastic], scheme)
    law = PlasticLaw.of_voxels(cell, [SOFT, HARD], problem.points)
    system = MixedSystem(problem, torch.tensor([True, False, False]))
    macro = torch.tensor([[[strain, 0.0, 0.0]]], dtype=torch.float64)
    rest = torch.zeros(1, 1, 2, *cell.shape[1:], dtype=torch.float64)
    old, target = law.virgin_state(problem.spread(macro)), torch.zeros_like(macro[0])
    return system, law, old, target, evaluate(system, law, old, target, rest, macro)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_newton_converges_quadratically(scheme, monkeypatch):
    # Linear systems solved well from the start, so that Newton's own rate is seen.
    monkeypatch.setattr(equilibrium, "FIRST_FORCING", 1e-4)
    *problem, start = first_step(noise(1, 5, 4), scheme, 0.003)
    settings = NewtonSettings(1e-13, 12, 2000)
    trial, record = equilibrate(*problem, start, 0.0 * start.norm, settings)
    history = [float(norm) for norm in record.history]
    assert float(trial.norm / trial.scale) < 1e-12, history
    beyond = [norm for norm in history if norm > 1e-11]
    a, b, c = beyond[-3:]
    assert np.log(c / b) / np.log(b / a) > 1.6, history


def test_each_newton_step_lowers_the_potential():
    """A step ten times the elastic limit on noise: full Newton steps would overshoot here."""
    *problem, trial = first_step(noise(1, 6, 6), "rotated", 0.01)
    system, law, _, target = problem
    values, once = [float(potential(system, law, target, trial))], NewtonSettings(1e-8, 1, 2000)
    while len(values) < 40 and float(trial.norm / trial.scale) > 1e-6:
        trial, _ = equilibrate(*problem, trial, 0.0 * trial.norm, once)
        values.append(float(potential(system, law, target, trial)))
    assert float(trial.norm / trial.scale) < 1e-6
    assert (np.diff(values) < 1e-12 * values[0]).all(), values


def test_a_large_step_without_hardening_converges():
    weak, strong = phase(70.0, 0.33, 0.1), phase(700.0, 0.2, 0.4)
    path, cell = LoadingPath.uniaxial(strain=0.05, steps=1, dim=2), noise(1, 6, 6)
    test = solve_plasticity(cell, [weak, strong], path, scheme="q1", max_halvings=0)
    assert float(test.residual.max()) < 1e-5
    # No plane-strain stress beyond the mean of what each phase bears alone, 2/sqrt(3) sy.
    share = float(cell.double().mean())
    limit = 2.0 / 3.0**0.5 * (0.1 * (1.0 - share) + 0.4 * share)
    assert 0.1 < float(test.mean_stress[0, -1, 0]) < limit * (1.0 + 1e-5)


def test_a_failing_step_is_halved_for_the_samples_that_fail(monkeypatch):
    tried = []

    def watched(system, law, old, target, *rest):
        tried.extend((target[:, 0] / 0.004).tolist())
        return equilibrate(system, law, old, target, *rest)

    monkeypatch.setattr(load_stepping, "equilibrate", watched)
    easy, rough = torch.zeros(1, 4, 4, dtype=torch.long), noise(1, 4, 4)
    once, fine = (LoadingPath.uniaxial(strain=0.004, steps=k, dim=2) for k in (1, 8))
    options = {"scheme": "q1", "tolerance": 1e-7}
    cells = torch.cat((easy, rough))
    test = solve_plasticity(cells, [SOFT, HARD], once, max_newton=3, **options)
    assert test.substeps[0, 0] == 1
    assert test.substeps[1, 0] >= 2
    assert tried[:3] == [1.0, 1.0, 0.5]
    assert float(test.residual.max()) <= 1e-7
    assert float(test.mean_strain[1, -1, 0]) == 0.004
    assert float(test.mean_stress[1, -1, 1:].abs().max()) < 1e-6
    # Shorter steps come closer to the rate equations.
    whole, exact = (solve_plasticity(rough, [SOFT, HARD], path, **options) for path in (once, fine))
    target = exact.plastic_work[0, -1]
    off, off_whole = (abs(w - target) for w in (test.plastic_work[1, -1], whole.plastic_work[0, 0]))
    assert float(off) < 0.8 * float(off_whole)


def test_steady_flow_is_extrapolated():
    """Past yield a uniaxial test of one phase goes straight on: nothing is left for Newton."""
    path = LoadingPath.uniaxial(strain=0.01, steps=5)
    test = solve_plasticity(uniform(3), [SINGLE], path)
    assert test.newton_iterations[0, 0] > 0
    assert int(test.newton_iterations[0, 2:].sum()) == 0


def test_beyond_the_limit_load_the_error_tells_the_residuals():
    weak = phase(70.0, 0.33, 0.1)
    path = LoadingPath.proportional([[0.3, 0.0, 0.0]], steps=4, strain_driven=[False] * 3)
    with pytest.raises(ConvergenceError, match=r"step 2 .* 2 halvings; residuals .*, ") as told:
        solve_plasticity(uniform(2), [weak], path, max_newton=6, max_halvings=2, max_iterations=20)
    assert "limit load" in str(told.value)


def test_pores_weaken_a_cell():
    matrix, pore = phase(70.0, 0.33, 0.1), phase(0.0, 0.3)
    cell = torch.zeros(1, 6, 6, dtype=torch.long)
    cell[:, 2:4, 2:4] = 1
    path = LoadingPath.uniaxial(strain=0.02, steps=4, dim=2)
    test = solve_plasticity(cell, [matrix, pore], path, scheme="q1", tolerance=1e-4)
    stress = float(test.mean_stress[0, -1, 0])
    # Uniform flow of the matrix bounds the strength above, the ligament's own strength below.
    assert 4 / 6 * 0.1 < stress < 2.0 / 3.0**0.5 * 0.1 * (1.0 - 4 / 36)
    assert float(test.stress[0, :, 2:4, 2:4].abs().max()) == 0.0


def test_progress_is_told():
    seen = []
    path = LoadingPath.uniaxial(strain=0.01, steps=3, dim=2)
    solve_plasticity(
        uniform(2), [SINGLE], path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scheme": "staggered"}, "scheme"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_newton": 0}, "max_newton"),
        ({"phases": torch.full((1, 4, 4), 2)}, "labels"),
        ({"phases": torch.rand(1, 4, 4, dtype=torch.float64)}, "integer labels"),
        ({"path": LoadingPath.uniaxial(strain=0.01)}, "3 Mandel components"),
        (
            {"path": LoadingPath(torch.zeros(3, 2, 3), torch.ones(2, 3, dtype=torch.bool))},
            "targets of 1 samples",
        ),
    ],
)
def test_faults_are_named_before_any_work(change, said):
    arguments = {
        "phases": noise(1, 4, 4),
        "materials": [SOFT, HARD],
        "path": LoadingPath.uniaxial(strain=0.01, steps=2, dim=2),
    } | change
    with pytest.raises(DataError, match=said):
        solve_plasticity(**arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LoadingPath(torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool)),
        lambda: LoadingPath(torch.zeros(2, 3), torch.ones(3, 3, dtype=torch.bool)),
        lambda: LoadingPath(torch.full((2, 3), torch.nan), torch.ones(2, 3, dtype=torch.bool)),
        lambda: LoadingPath.uniaxial(strain=0.01, dim=2, axis=2),
        lambda: LoadingPath.uniaxial(strain=0.01, steps=0),
        lambda: LoadingPath.uniaxial(strain=0.1).then(LoadingPath.uniaxial(strain=0.1, dim=2)),
    ],
)
def test_paths_that_make_no_sense_are_refused(make):
    with pytest.raises(DataError):
        make()

"""The J2 law at a point: tangent, yield surface, exact proportional return, laws of hardening."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from microstructures import DataError
from physics.mechanics.hardening import (
    ElasticPlastic,
    LinearHardening,
    PowerHardening,
    plastic_increment,
)
from physics.mechanics.materials import IsotropicElastic
from physics.mechanics.radial_return import PlasticLaw, von_mises

STEEL = IsotropicElastic(youngs_modulus_gpa=200.0, poisson_ratio=0.3)
CURVES = {
    "elastic": None,
    "perfect": LinearHardening(yield_stress_gpa=0.3),
    "linear": LinearHardening(yield_stress_gpa=0.3, modulus_gpa=5.0),
    "power": PowerHardening(yield_stress_gpa=0.2, strength_gpa=0.6, exponent=0.25),
}
MATERIALS = [ElasticPlastic(elastic=STEEL, hardening=curve) for curve in CURVES.values()]
COMPONENTS = {2: 3, 3: 6}


def random(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return size * draw


def law_of(*phases: int, dim: int = 3, count: int = 40) -> PlasticLaw:
    """`count` voxels of each phase in a row."""
    labels = torch.tensor(phases).repeat_interleave(count).view(1, -1, *[1] * (dim - 1))
    return PlasticLaw.of_voxels(labels, MATERIALS)


def strained(law: PlasticLaw, dim: int, *, seed: int, size: float = 0.004) -> torch.Tensor:
    return random(1, 1, COMPONENTS[dim], *law.phase.shape[2:], seed=seed, size=size)


def pushed(law: PlasticLaw, dim: int, steps: int = 3):
    """A law's state after some random strains, and the last strain."""
    strain = strained(law, dim, seed=1)
    state = law.virgin_state(strain)
    for seed in range(2, 2 + steps):
        state = law.update(strain, state).state
        strain = strain + strained(law, dim, seed=seed, size=0.002)
    return state, strain


@pytest.mark.parametrize("dim", [2, 3])
def test_the_tangent_is_the_derivative_of_the_stress(dim):
    law = law_of(0, 1, 2, 3, dim=dim)
    state, strain = pushed(law, dim)
    update = law.update(strain, state)
    plane = [0, 1, 3] if dim == 2 else list(range(6))
    step = 1e-7
    for seed in range(3):
        e = strained(law, dim, seed=50 + seed, size=1.0)
        high, low = (law.update(strain + s * step * e, state).stress for s in (1.0, -1.0))
        slope = ((high - low) / (2.0 * step))[:, :, plane]
        off = torch.linalg.vector_norm(slope - update.tangent(e), dim=2)
        assert float((off / torch.linalg.vector_norm(slope, dim=2)).max()) < 1e-6
    # The test reaches points that yield and points that do not.
    yielding = update.state.equivalent > state.equivalent
    assert yielding.any()
    assert not yielding.all()


@pytest.mark.parametrize("dim", [2, 3])
def test_the_stress_is_the_derivative_of_a_convex_energy(dim):
    law = law_of(0, 1, 2, 3, dim=dim)
    state, strain = pushed(law, dim)
    e = strained(law, dim, seed=60, size=1.0)
    step = 1e-6

    def energy(s: float) -> torch.Tensor:
        return law.energy(strain + s * e, law.update(strain + s * e, state))

    stress = law.update(strain, state).stress
    power = (stress[:, :, [0, 1, 3] if dim == 2 else slice(None)] * e).sum(2)
    slope = (energy(step) - energy(-step)) / (2.0 * step)
    assert torch.allclose(slope, power, rtol=1e-6, atol=1e-6 * float(power.abs().max()))
    for size in (1e-4, 1e-3, 1e-2):
        middle, ends = 2.0 * energy(0.0), energy(size) + energy(-size)
        assert float((middle - ends).max()) < 1e-15


@pytest.mark.parametrize("dim", [2, 3])
def test_the_yield_surface_is_never_violated(dim):
    law = law_of(1, 2, 3, dim=dim, count=200)
    strain = strained(law, dim, seed=0, size=1e-3)
    state = law.virgin_state(strain)
    for seed in range(1, 40):
        update = law.update(strain, state)
        flow, q = law.flow_stress(update.state), von_mises(update.stress)
        assert float((q / flow).max()) < 1.0 + 1e-12
        yielding = update.state.equivalent > state.equivalent
        assert torch.allclose(q[yielding], flow[yielding], rtol=1e-12)
        assert (update.state.equivalent >= state.equivalent).all()
        state = update.state
        strain = strain + strained(law, dim, seed=seed, size=1e-3)
    assert float(state.strain[:, :, :3].sum(2).abs().max()) < 1e-15
    assert float(state.equivalent.min()) > 1e-3


def test_proportional_loading_is_exact_in_one_step():
    law = law_of(1, 2, 3)
    direction = strained(law, 3, seed=3, size=0.01)
    once = law.update(direction, law.virgin_state(direction))
    state = law.virgin_state(direction)
    for step in range(1, 101):
        many = law.update(direction * (step / 100), state)
        state = many.state
    assert float((once.stress - many.stress).abs().max()) < 1e-13
    assert float((once.state.equivalent - state.equivalent).abs().max()) < 1e-14


def test_plane_strain_is_three_dimensional_with_no_strain_across():
    flat, solid = law_of(1, 2, 3, dim=2), law_of(1, 2, 3, dim=3)
    strain = strained(flat, 2, seed=4)
    full = torch.zeros(1, 1, 6, *solid.phase.shape[2:], dtype=torch.float64)
    full[:, :, [0, 1, 5]] = strain.unsqueeze(-1)
    a, b = (law.update(e, law.virgin_state(e)) for law, e in ((flat, strain), (solid, full)))
    assert torch.allclose(a.stress, b.stress[:, :, [0, 1, 2, 5], ..., 0], atol=1e-15)
    assert torch.allclose(a.state.strain, b.state.strain[:, :, [0, 1, 2, 5], ..., 0], atol=1e-18)
    # Plastic flow goes out of the plane although no strain does.
    assert float(a.state.strain[:, :, 2].abs().max()) > 1e-3


def test_unloading_is_elastic_and_reloading_yields_where_it_left():
    law = law_of(2, 3)
    strain = strained(law, 3, seed=5, size=0.01)
    loaded = law.update(strain, law.virgin_state(strain))
    less = 0.9 * strain
    back = law.update(less, loaded.state)
    elastic = torch.einsum("ij,bljxyz->blixyz", STEEL.stiffness(3), less - strain)
    assert torch.allclose(back.stress, loaded.stress + elastic, atol=1e-14)
    assert torch.equal(back.state.equivalent, loaded.state.equivalent)
    again = law.update(strain, back.state)
    assert torch.allclose(again.stress, loaded.stress, atol=1e-14)
    assert float((again.state.equivalent - loaded.state.equivalent).abs().max()) < 1e-15


def test_the_return_converges_to_the_rate_equations():
    """Shear, then stretch while the shear stays: the direction of flow turns."""
    shear, hard, sy = STEEL.shear, 5.0, 0.3
    turn, stretch = np.zeros(6), np.zeros(6)
    turn[5], stretch[:3] = 0.006, np.array([0.006, -0.003, -0.003])

    def rates(t: float, y: np.ndarray) -> np.ndarray:
        """Deviatoric stress s and p: s' = 2G(e' - sqrt(3/2) p' n), p' from consistency."""
        s, rate = y[:6], (turn if t < 1.0 else stretch)
        n = s / max(np.linalg.norm(s), 1e-30)
        q = 1.5**0.5 * np.linalg.norm(s)
        drive = 2.0 * shear * 1.5**0.5 * n @ rate
        yielding = q >= (sy + hard * y[6]) * (1 - 1e-12) and drive > 0.0
        dp = drive / (3.0 * shear + hard) if yielding else 0.0
        return np.append(2.0 * shear * (rate - 1.5**0.5 * dp * n), dp)

    # Both start on the yield surface: until then the return is exact.
    onset = sy / 3.0**0.5 / (2.0 * shear) * 2.0**0.5 / turn[5]
    start = np.append(2.0 * shear * onset * turn, 0.0)
    options = {"rtol": 1e-11, "atol": 1e-14}
    middle = solve_ivp(rates, (onset, 0.999999999), start, **options).y[:, -1]
    exact = solve_ivp(rates, (1.0, 2.0), middle, **options).y[:, -1]
    law = law_of(2, count=1)
    misses = []
    for steps in (20, 40, 80):
        strain = torch.zeros(1, 1, 6, 1, 1, 1, dtype=torch.float64)
        state = law.virgin_state(strain)
        for load in (turn, stretch):
            for _ in range(steps):
                strain = strain + torch.tensor(load / steps).view(1, 1, 6, 1, 1, 1)
                state = law.update(strain, state).state
        misses.append(abs(float(state.equivalent) / exact[6] - 1.0))
    orders = [np.log2(a / b) for a, b in pairwise(misses)]
    assert misses[-1] < 2e-3
    assert all(0.88 < order < 1.1 for order in orders), (misses, orders)


def test_the_power_law_is_exact_beyond_its_parabola():
    curve = CURVES["power"]
    p = torch.logspace(-10, 0, 200, dtype=torch.float64)
    exact = 0.2 + 0.6 * p**0.25
    beyond = p >= curve.smooth_below
    assert torch.allclose(curve.flow_stress(p)[beyond], exact[beyond], rtol=1e-14)
    assert float(curve.flow_stress(torch.zeros(1, dtype=torch.float64))) == 0.2
    edge = curve.smooth_below * torch.tensor([1.0 - 1e-9, 1.0 + 1e-9], dtype=torch.float64)
    for function in (curve.flow_stress, curve.slope, curve.energy):
        below, above = function(edge)
        assert float((below / above - 1.0).abs()) < 1e-8
    assert (curve.slope(p) > 0.0).all()


@pytest.mark.parametrize("name", ["perfect", "linear", "power"])
def test_slope_and_energy_belong_to_the_flow_stress(name):
    curve = CURVES[name]
    p = torch.logspace(-8, -1, 50, dtype=torch.float64)
    step = 1e-5 * p
    flow, energy = (
        (f(p + step) - f(p - step)) / (2.0 * step) for f in (curve.flow_stress, curve.energy)
    )
    assert torch.allclose(flow, curve.slope(p), rtol=1e-4, atol=1e-6)
    assert torch.allclose(energy, curve.flow_stress(p), rtol=1e-6)


def test_the_scalar_return_meets_the_curve_for_any_exponent():
    shear = torch.full((60,), 80.0, dtype=torch.float64)
    q = 0.2 + torch.logspace(-9, 1, 60, dtype=torch.float64)
    start = torch.zeros_like(q)
    for exponent in (0.02, 0.1, 0.3, 0.7, 1.0):
        curve = PowerHardening(yield_stress_gpa=0.2, strength_gpa=0.6, exponent=exponent)
        dp = plastic_increment(curve, q, start, shear)
        off = q - 240.0 * dp - curve.flow_stress(dp)
        assert (dp > 0.0).all()
        assert float((off.abs() / q).max()) < 1e-13
    # With the exponent 1/2 the root of dp solves a quadratic.
    curve = PowerHardening(yield_stress_gpa=0.2, strength_gpa=0.6, exponent=0.5)
    root = (-0.6 + (0.36 + 960.0 * (q - 0.2)).sqrt()) / 480.0
    beyond = root**2 > curve.smooth_below
    dp = plastic_increment(curve, q, start, shear)
    assert torch.allclose(dp[beyond], root[beyond] ** 2, rtol=1e-9)


def test_a_pore_and_an_elastic_phase_do_not_flow():
    pore = ElasticPlastic(elastic=IsotropicElastic(youngs_modulus_gpa=0.0))
    labels = torch.tensor([[[0, 1], [0, 1]]])
    law = PlasticLaw.of_voxels(labels, [pore, MATERIALS[0]])
    strain = random(1, 1, 3, 2, 2, size=0.1)
    update = law.update(strain, law.virgin_state(strain))
    assert float(update.stress[..., 0].abs().max()) == 0.0
    assert float(update.state.equivalent.abs().max()) == 0.0
    assert float(update.tangent(strain)[..., 0].abs().max()) == 0.0
    elastic = torch.einsum("ij,bljxy->blixy", STEEL.stiffness(2), strain)[..., 1]
    assert torch.allclose(update.stress[:, :, [0, 1, 3], :, 1], elastic, rtol=1e-13)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LinearHardening(yield_stress_gpa=0.0), "yield_stress_gpa"),
        (lambda: LinearHardening(yield_stress_gpa=float("nan")), "yield_stress_gpa"),
        (lambda: LinearHardening(yield_stress_gpa=0.3, modulus_gpa=-1.0), "modulus_gpa"),
        (lambda: PowerHardening(yield_stress_gpa=0.3, strength_gpa=1.0, exponent=1.5), "exponent"),
        (lambda: ElasticPlastic(hardening=CURVES["linear"]), "elastic"),
        (
            lambda: ElasticPlastic(
                elastic=IsotropicElastic(youngs_modulus_gpa=0.0), hardening=CURVES["linear"]
            ),
            "pore",
        ),
    ],
)
def test_settings_out_of_range_are_named(make, said):
    with pytest.raises(DataError, match=said):
        make()


def test_a_state_keeps_its_samples_apart():
    """Two samples at once give what each gives alone."""
    labels = torch.randint(4, (3, 5, 4), generator=torch.Generator().manual_seed(0))
    law = PlasticLaw.of_voxels(labels, MATERIALS, points=(4,))
    strain = random(3, 1, 3, 4, 5, 4, seed=8, size=0.004)
    together = law.update(strain, law.virgin_state(strain))
    for k in range(3):
        alone = law.select(slice(k, k + 1))
        one = strain[k : k + 1]
        update = alone.update(one, alone.virgin_state(one))
        assert torch.allclose(update.stress[0], together.stress[k], rtol=1e-13, atol=1e-15)

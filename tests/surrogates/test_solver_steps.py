"""The solver's first steps: bounds in order, tightening to the solver's own answer."""

from itertools import pairwise

import pytest
import torch

from physics.mechanics import effective_conductivity, effective_stiffness, voigt_reuss_bounds
from surrogates.quantities import Conductivity, Stiffness, local_moduli, quantity_named, scaled
from surrogates.solver_steps import MatrixInterval, SolverSteps


def moduli_of(phases, materials):
    return local_moduli(phases, Stiffness().phase_moduli(materials, phases.ndim - 1)[None])


def least(matrix):
    return float(torch.linalg.eigvalsh((matrix + matrix.mT) / 2).min())


def test_bounds_are_in_order_and_tighten_with_each_step(blobs, materials):
    phases = blobs(6, seed=40)
    exact = effective_stiffness(phases, materials, tolerance=1e-8).value
    found = [
        SolverSteps.of(Stiffness().problem(moduli_of(phases, materials)), k) for k in (1, 2, 4)
    ]
    fractions = torch.stack([1 - phases.double().mean((1, 2)), phases.double().mean((1, 2))], 1)
    bounds = voigt_reuss_bounds(fractions, materials, dim=2)
    # The staggered scheme's shear lives on corners, where harmonic means make it softer.
    assert torch.allclose(found[0].voigt[:, :2, :2], bounds.upper[:, :2, :2], rtol=1e-5)
    assert (found[0].voigt[:, 2, 2] <= bounds.upper[:, 2, 2]).all()
    assert torch.allclose(found[0].reuss, bounds.lower, rtol=1e-5)
    uppers = [found[0].voigt, *(steps.interval.upper for steps in found), exact]
    for wide, narrow in pairwise(uppers):
        assert least(wide - narrow) > -1e-5
    assert least(exact - found[0].reuss) > -1e-5
    gap = (found[-1].interval.upper - exact)[:, 0, 0] / exact[:, 0, 0]
    assert gap.max() < 0.02


def test_a_laminate_is_exact_after_one_step(materials):
    phases = torch.zeros(1, 16, 16, dtype=torch.uint8)
    phases[:, :6] = 1
    exact = effective_conductivity(phases, [1.0, 10.0], tolerance=1e-8).value
    moduli = local_moduli(phases, Conductivity().phase_moduli([1.0, 10.0], 2)[None])
    steps = SolverSteps.of(Conductivity().problem(moduli), 1)
    # Along the layers no step is needed; across them one direction holds the whole answer only
    # when the flux is already uniform, which several steps make it.
    many = SolverSteps.of(Conductivity().problem(moduli), 12)
    assert steps.interval.upper[0, 1, 1] == pytest.approx(float(exact[0, 1, 1]), rel=1e-5)
    assert many.interval.upper[0, 0, 0] == pytest.approx(float(exact[0, 0, 0]), rel=1e-3)


def test_shares_and_matrices_are_each_others_inverse():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(4, 3, 3, generator=generator, dtype=torch.float64)
    lower = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    interval = MatrixInterval.between(lower, lower + a @ a.mT + 0.1 * lower)
    share = a @ torch.linalg.inv(torch.eye(3) + a.mT @ a) @ a.mT
    assert torch.allclose(interval.share(interval.at(share)), share, atol=1e-10)
    assert torch.allclose(interval.at(0 * share), interval.lower)
    whole = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    assert torch.allclose(interval.at(whole), interval.upper, atol=1e-4)


def test_a_cell_of_one_phase_has_an_empty_interval(materials):
    phases = torch.ones(1, 16, 16, dtype=torch.uint8)
    steps = SolverSteps.of(Stiffness().problem(moduli_of(phases, materials)), 2)
    stiffness = materials[1].stiffness(2)
    half = 0.5 * torch.eye(3, dtype=torch.float64)[None]
    assert torch.allclose(steps.interval.at(half)[0], stiffness, rtol=1e-4)


def test_three_dimensions_take_the_same_path(materials):
    phases = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    phases[:, :4, 2:6] = 1
    exact = effective_stiffness(phases, materials, tolerance=1e-8).value
    steps = SolverSteps.of(Stiffness().problem(moduli_of(phases, materials)), 3)
    assert least(steps.interval.upper - exact) > -1e-5
    assert least(steps.voigt - steps.interval.upper) > -1e-12


def test_units_cancel_and_fractions_mix_by_voigts_rule(blobs, materials):
    phases = blobs(2, seed=41)
    moduli = moduli_of(phases, materials)
    own, unit = scaled(moduli)
    other, thousandfold = scaled(1000 * moduli)
    assert torch.allclose(own, other)
    assert torch.allclose(1000 * unit, thousandfold)
    one_hot = torch.stack([phases == 0, phases == 1], 1).double()
    values = Stiffness().phase_moduli(materials, 2)[None]
    assert torch.allclose(local_moduli(one_hot, values), moduli)
    assert quantity_named("conductivity").components(3) == 3

"""Thermal expansion: intervals that follow from the stiffness's, and what the surrogate gives."""

import pytest
import torch

from microstructures import DataError
from physics.mechanics import IsotropicElastic, effective_stiffness
from surrogates import PropertySurrogate
from surrogates.pooled_net import PooledNet
from surrogates.thermal_expansion import expansion_bracket, levin_expansion

EXPANSIONS = [2e-5, 5e-6]


def test_a_loose_bracket_of_the_stiffness_holds_the_solvers_own_expansion(blobs, materials):
    phases = blobs(6, seed=80)
    exact = effective_stiffness(phases, materials, tolerance=1e-8, eigenstrain=EXPANSIONS)
    widths = []
    for tolerance in (0.2, 0.02):
        loose = effective_stiffness(phases, materials, tolerance=tolerance)
        ends = (loose.value, loose.lower, loose.upper)
        found = expansion_bracket(*ends, materials, EXPANSIONS, level="discrete")
        assert (found.lower <= exact.eigenstrain + 1e-12).all()
        assert (exact.eigenstrain <= found.upper + 1e-12).all()
        widths.append(float((found.upper - found.lower).max()))
    assert 1e-8 < widths[1] < 0.1 * widths[0]


def test_independent_errors_of_entries_spread_as_the_interval_says(blobs, materials):
    """Entries off by normal errors of 1 %: the interval is their 1-sigma one to first order."""
    value = effective_stiffness(blobs(1, seed=81), materials, tolerance=1e-6).value
    half = 0.01 * value.abs().clamp_min(0.1)
    found = expansion_bracket(
        value, value - half, value + half, materials, EXPANSIONS, level="statistical"
    )
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 3, 3, generator=generator, dtype=torch.float64)
    off = levin_expansion(value + half * noise, materials, EXPANSIONS)
    spread, said = off.std(0), (found.upper - found.lower)[0] / 2
    assert torch.allclose(spread, said, rtol=0.1)


def test_the_property_surrogate_gives_the_expansion_of_two_phases(materials):
    torch.manual_seed(0)
    model = PropertySurrogate.from_pretrained("stiffness-2d")
    phases = (torch.rand(2, 8, 8) > 0.5).to(torch.uint8).repeat(1, 8, 8)
    phases = phases.roll(1, 1) * phases
    truth = effective_stiffness(phases, materials, tolerance=1e-4, eigenstrain=EXPANSIONS)
    found = model.expansion(phases, materials, EXPANSIONS)
    own = torch.tensor(
        [a * (1 + m.poisson_ratio) for a, m in zip(EXPANSIONS, materials, strict=True)]
    )
    assert float((found.value - truth.eigenstrain).abs().max()) < 0.1 * float(own[0] - own[1])
    assert found.level == "statistical"
    assert ((found.lower < found.value) & (found.value < found.upper)).all()
    with pytest.raises(DataError, match="eigenstrain"):
        model.expansion(phases, [*materials, IsotropicElastic(youngs_modulus_gpa=3)], [0, 0, 0])


def test_a_surrogate_of_another_quantity_is_refused(materials):
    net = PooledNet(quantity="conductivity", dim=2, widths=(8,), features=8, steps=1, members=1)
    model = PropertySurrogate(
        net, PropertySurrogate.from_pretrained("stiffness-2d").familiarity, torch.ones(2, 2)
    )
    with pytest.raises(DataError, match="conductivity"):
        model.expansion(torch.zeros(1, 16, 16, dtype=torch.uint8), materials, EXPANSIONS)

"""Yield stress: single phases and layers against closed forms, drawn cells inside the bounds."""

from dataclasses import replace

import pytest
import torch

from surrogates.yield_stress import YieldPhases, YieldRange


def phases(modulus=(1.0, 1.0), first=(2e-3, 4e-3), slope=1e-4) -> YieldPhases:
    row = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    return YieldPhases(
        youngs=row * torch.tensor(modulus),
        poisson=0.3 * row,
        first=row * torch.tensor(first),
        slope=slope * row,
    )


def test_a_phase_without_hardening_yields_at_its_limit_in_plane_strain():
    own = phases().own_stress()[0]
    # von Mises, plane strain: 2 / sqrt(3) at collapse, 1 / sqrt(1 - nu + nu^2) at first yield.
    assert torch.allclose(own / phases().first[0], torch.tensor(1.147).double(), atol=0.012)
    hardened = phases(slope=0.02).own_stress()[0]
    assert (hardened - own > 0.5 * 0.02 * 0.002).all()
    assert (hardened - own < 2 * 0.02 * 0.002).all()


def test_stress_has_the_unit_of_the_moduli():
    given = phases()
    in_mpa = replace(
        given, youngs=1000 * given.youngs, first=1000 * given.first, slope=1000 * given.slope
    )
    assert torch.allclose(in_mpa.own_stress(), 1000 * given.own_stress(), rtol=0.01)
    assert torch.allclose(in_mpa.inputs(), given.inputs())


@pytest.mark.parametrize("modulus", [(1.0, 1.0), (3.0, 1.0)])
def test_layers_along_the_load_reach_both_ends_of_the_bounds(modulus):
    given = phases(modulus, first=(0.02, 0.08))
    layers = torch.zeros(1, 8, 8, dtype=torch.uint8)
    layers[:, :, 4:] = 1
    own, half = given.own_stress(), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    lower, upper = given.bounds(own, half)
    stress = given.offset_stress(layers)
    assert lower < stress < upper
    assert torch.allclose(upper, 1.02 * own.mean(1))
    # Where the weak phase is also the stiff one, the cell yields below both of its phases.
    assert bool(stress < 0.95 * own.amin(1)) is (modulus[0] > 1)
    assert bool(lower < 0.9 * own.amin(1)) is (modulus[0] > 1)


def test_drawn_cells_stay_inside_their_bounds(blobs):
    cells = blobs(8, seed=90)
    drawn = YieldRange().drawn(8, seed=4)
    again = YieldRange().drawn(3, seed=4)
    assert torch.equal(drawn.table[:3], again.table)
    second = cells.double().flatten(1).mean(1)
    own = drawn.own_stress()
    lower, upper = drawn.bounds(own, torch.stack([1 - second, second], 1))
    stress = drawn.offset_stress(cells)
    assert ((lower < stress) & (stress < upper)).all()
    share = (stress - lower) / (upper - lower)
    assert 0.2 < float(share.mean()) < 0.9
    assert float(share.std()) > 0.1

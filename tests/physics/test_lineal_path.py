"""Lineal path against its definition and Poisson discs."""

import math

import pytest
import torch

from microstructures import DataError
from physics.statistics import lineal_path

from .test_correlation import overlapping_discs, soft


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("flags", [True, False])
def test_equals_its_definition(shape, flags):
    a = (soft(shape) < 0.7).double()
    found = lineal_path(a, max_lag=3, periodic=flags)
    assert found.shape == (2, len(shape), 4)
    for axis in range(len(shape)):
        for z in range(4):
            inside = torch.ones_like(a, dtype=torch.bool)
            for step in range(z + 1):
                inside &= a.roll(-step, axis + 1) > 0
            if not flags:
                inside = inside.narrow(axis + 1, 0, shape[axis] - z)
            expected = inside.double().flatten(1).mean(1)
            assert torch.allclose(found[:, axis, z], expected, atol=1e-14)


def test_poisson_discs_have_the_exponential_path():
    # NUMERICS row 15: void L(z) = exp(-rho (pi R^2 + 2 R z)).
    radius, density, n = 10.0, 0.002, 24
    void = overlapping_discs(n=n, size=320, radius=radius, density=density, seed=4)
    curves = lineal_path(void, max_lag=40).double().mean(1)
    z = torch.arange(41, dtype=torch.float64)
    exact = torch.exp(-density * (math.pi * radius**2 + 2 * radius * z))
    error = curves.mean(0) - exact
    assert (error.abs() < 4 * curves.std(0) / math.sqrt(n)).all()


def test_stripes_tell_the_axes_apart():
    stripes = torch.zeros(1, 8, 8)
    stripes[:, ::2] = 1
    path = lineal_path(stripes, max_lag=2)
    assert path[0, 0].tolist() == [0.5, 0, 0]
    assert path[0, 1].tolist() == [0.5, 0.5, 0.5]


def test_gradients_flow_through_soft_indicators():
    a = soft((4, 5), batch=1).requires_grad_()
    for flags in (True, False):
        assert torch.autograd.gradcheck(
            lambda x, wrap=flags: lineal_path(x, max_lag=2, periodic=wrap), (a,)
        )


def test_a_segment_longer_than_the_cell_is_refused():
    with pytest.raises(DataError, match="max_lag from 0 to 3"):
        lineal_path(torch.ones(1, 4, 6), max_lag=4)

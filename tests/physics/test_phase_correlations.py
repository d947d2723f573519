"""Correlations of all phase pairs against definition, identities and each other."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microstructures import DataError
from physics.statistics import (
    directional_correlation,
    lattice_directions,
    phase_correlations,
    two_point_correlation,
)

from .test_correlation import SHAPES, by_definition, soft


def labels(shape, *, n=3, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, n, (batch, *shape), generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_pair_equals_its_definition(shape):
    phases = labels(shape)
    for flags in itertools.product((True, False), repeat=len(shape)):
        found = phase_correlations(phases, periodic=flags, dtype=torch.float64)
        for p, q in itertools.product(range(3), repeat=2):
            for k in range(2):
                a, b = (phases[k] == p).double(), (phases[k] == q).double()
                assert torch.allclose(found[k, p, q], by_definition(a, b, flags), atol=1e-13)


@given(st.integers(0, 10_000), st.sampled_from(SHAPES), st.booleans(), st.integers(1, 4))
def test_identities_of_labels(seed, shape, periodic, n):
    phases = labels(shape, n=n, seed=seed)
    maps = phase_correlations(phases, n_phases=n, periodic=periodic)
    axes = tuple(range(1, len(shape) + 1))
    assert torch.allclose(maps.sum((1, 2)), torch.ones(()), atol=1e-5)
    phi = torch.stack([(phases == p).float().mean(axes) for p in range(n)], 1)
    zero = maps[(..., *[0] * len(shape))]
    assert torch.allclose(zero, torch.diag_embed(phi), atol=1e-6)
    space = tuple(range(3, maps.ndim))
    turned = maps.flip(space).roll([1] * len(shape), space)
    assert torch.allclose(turned, maps.transpose(1, 2), atol=1e-5)
    if periodic:
        over_q = phi.view(2, n, *[1] * len(shape)).expand_as(maps[:, :, 0])
        assert torch.allclose(maps.sum(2), over_q, atol=1e-6)
        moved = phase_correlations(phases.roll([2, 1], (1, 2)), n_phases=n)
        assert torch.allclose(maps, moved, atol=1e-6)


def test_absent_phases_have_no_pairs():
    maps = phase_correlations(labels((6, 7), n=2), n_phases=4, periodic=False)
    assert torch.allclose(maps[:, 2:], torch.zeros(()), atol=1e-6)
    assert torch.allclose(maps[:, :2, :2].sum((1, 2)), torch.ones(()), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_hot_fractions_give_what_labels_give(shape):
    phases = labels(shape)
    fractions = torch.stack([(phases == p).double() for p in range(3)], 1)
    for flags in (True, False):
        hard = phase_correlations(phases, periodic=flags, dtype=torch.float64)
        assert torch.allclose(phase_correlations(fractions, periodic=flags), hard, atol=1e-13)


def test_gradients_flow_through_fractions_twice():
    fractions = soft((2, 3, 2), batch=1).requires_grad_()
    for flags in itertools.product((True, False), repeat=2):
        correlate = lambda x, wrap=flags: phase_correlations(x, periodic=wrap)  # noqa: E731
        assert torch.autograd.gradcheck(correlate, (fractions,))
    assert torch.autograd.gradgradcheck(correlate, (fractions,))


def test_large_cells_are_correlated_slab_by_slab_alike():
    # Larger than what one slab holds, so that every loop over slabs runs more than once.
    a, b = soft((72, 70, 68), batch=1), soft((72, 70, 68), batch=1, seed=1)
    for flags in (True, False):
        auto = two_point_correlation(a, periodic=flags)
        cross = two_point_correlation(a, b, periodic=flags)
        for lag in ((0, 0, 0), (3, -5, 7), (-30, 2, -33), (20, 31, 1)):
            there = [max(-k, 0) for k in lag]
            here = [max(k, 0) for k in lag]
            for other, found in ((a, auto), (b, cross)):
                if flags:
                    expected = (a * other.roll([-k for k in lag], (1, 2, 3))).mean()
                else:
                    spans = [n - abs(k) for n, k in zip(a.shape[1:], lag, strict=True)]
                    x = a[0][tuple(slice(s, s + n) for s, n in zip(there, spans, strict=True))]
                    y = other[0][tuple(slice(s, s + n) for s, n in zip(here, spans, strict=True))]
                    expected = (x * y).mean()
                assert float(found[(0, *lag)]) == pytest.approx(float(expected), abs=1e-12)


def test_directions_of_stripes():
    stripes = torch.zeros(1, 8, 8, 8)
    stripes[:, ::2] = 1
    curves = directional_correlation(two_point_correlation(stripes), max_lag=4)
    assert torch.allclose(curves[0, 0], torch.tensor([0.5, 0, 0.5, 0, 0.5]), atol=1e-6)
    assert torch.allclose(curves[0, 1:], torch.full((2, 5), 0.5), atol=1e-6)
    diagonals = directional_correlation(
        two_point_correlation(stripes, periodic=False),
        max_lag=3,
        directions=[(1, 1, 0), (-1, 1, 1), (2, 1, 0)],
    )
    # Of the 8 - k rows that have a partner k rows on, those on stripes.
    assert torch.allclose(diagonals[0, 0], torch.tensor([0.5, 0, 0.5, 0]), atol=1e-5)
    assert torch.allclose(diagonals[0, 1], diagonals[0, 0], atol=1e-5)
    assert torch.allclose(diagonals[0, 2], torch.full((4,), 0.5), atol=1e-5)


def test_directions_follow_the_lags_of_a_cross_correlation():
    a, b = soft((7, 9)), soft((7, 9), seed=1)
    curves = directional_correlation(
        two_point_correlation(a, b), max_lag=3, directions=[(1, -1), (-1, 1), (0, 1)]
    )
    for k in range(4):
        for which, lag in enumerate(((k, -k), (-k, k), (0, k))):
            expected = (a * b.roll([-x for x in lag], (1, 2))).mean((1, 2))
            assert torch.allclose(curves[:, which, k], expected, atol=1e-13)


@pytest.mark.parametrize(("ndim", "count"), [(2, 4), (3, 13)])
def test_lattice_directions_are_the_neighbours_up_to_sign(ndim, count):
    found = lattice_directions(ndim)
    assert found[:ndim] == [tuple(int(i == j) for j in range(ndim)) for i in range(ndim)]
    both = set(found) | {tuple(-k for k in v) for v in found}
    assert len(found) == count
    assert len(both) == 3**ndim - 1
    lengths = [math.hypot(*v) for v in found]
    assert lengths == sorted(lengths)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="labels from 0 to 1"):
        phase_correlations(labels((4, 4), n=3), n_phases=2)
    with pytest.raises(DataError, match="labels from 0"):
        phase_correlations(labels((4, 4)) - 1)
    with pytest.raises(DataError, match="batch"):
        phase_correlations(torch.zeros(4, 4, dtype=torch.long))
    with pytest.raises(DataError, match="fractions of 3 phases"):
        phase_correlations(soft((2, 4, 4)), n_phases=3)
    plain = two_point_correlation(soft((6, 8)))
    with pytest.raises(DataError, match="inside half a map"):
        directional_correlation(plain, max_lag=2, directions=[(2, 0)])
    with pytest.raises(DataError, match="directions of 2 numbers"):
        directional_correlation(plain, max_lag=2, directions=[(0, 0)])

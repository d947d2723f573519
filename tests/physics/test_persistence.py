"""Persistent homology against discs, rings, the torus, Euler's number and stability."""

import math

import gudhi
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from microstructures import DataError
from physics.statistics import euler_density
from physics.statistics.persistence import (
    PersistenceDiagram,
    persistence_diagram,
    persistence_image,
    signed_distance,
    sublevel_persistence,
)


def radius(shape, centre):
    grids = torch.meshgrid(*[torch.arange(n).double() for n in shape], indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)).sqrt()


def long_lived(pairs, *, least=1.5):
    """Finite and essential classes that digitisation did not make."""
    return pairs[pairs[:, 1] - pairs[:, 0] > least]


def test_a_disc_in_a_periodic_cell():
    size, r = 41, 9.3
    disc = (radius((size, size), (20, 20)) < r).roll((13, 30), (0, 1))[None]
    pieces, loops, whole = persistence_diagram(disc, voxel_size_um=0.5)[0].pairs
    # One piece as thick as the disc; loops when it meets its images, all when corners fill.
    assert pieces == pytest.approx(np.array([[-r / 2, math.inf]]), abs=0.5)
    assert long_lived(loops) == pytest.approx(
        np.array([[(size / 2 - r) / 2, math.inf]] * 2), abs=0.5
    )
    corner = (size / math.sqrt(2) - r) / 2
    assert whole == pytest.approx(np.array([[corner, math.inf]]), abs=0.75)


def test_a_ring_and_a_shell_on_their_own():
    inner, outer = 6.2, 13.1
    for ndim in (2, 3):
        r = radius((33,) * ndim, (16,) * ndim)
        ring = ((r > inner) & (r < outer))[None]
        diagram = persistence_diagram(ring, periodic=False)[0]
        half = (outer - inner) / 2
        pieces, hole = long_lived(diagram.pairs[0]), long_lived(diagram.pairs[ndim - 1])
        assert len(pieces) == 1
        assert pieces[0] == pytest.approx([-half, math.inf], abs=1)
        assert len(hole) == 1
        assert hole[0] == pytest.approx([-half, inner], abs=1)
        assert diagram.betti_numbers(0.0) == (1, *[0] * (ndim - 2), 1, 0)


@pytest.mark.parametrize(
    ("flags", "betti"),
    [
        ((True, True), (1, 2, 1)),
        ((True, False), (1, 1, 0)),
        ((False, False), (1, 0, 0)),
        ((True, True, True), (1, 3, 3, 1)),
        ((True, False, True), (1, 2, 1, 0)),
    ],
)
def test_the_whole_cell_has_the_betti_numbers_of_its_torus(flags, betti):
    a = torch.rand(2, *[6, 7, 5][: len(flags)], generator=torch.Generator().manual_seed(0)) < 0.5
    for diagram in persistence_diagram(a, periodic=flags):
        assert diagram.betti_numbers(100.0) == betti


@given(
    st.integers(0, 10_000),
    st.sampled_from(
        [((8, 9), True), ((8, 9), (False, True)), ((5, 6, 4), True), ((5, 4, 6), False)]
    ),
    st.floats(0.2, 0.8),
)
@settings(max_examples=40)
def test_betti_numbers_give_the_euler_number(seed, case, fraction):
    shape, flags = case
    a = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed)) < fraction
    assume(a.any() and not a.all())
    betti = persistence_diagram(a, periodic=flags)[0].betti_numbers(0.0)
    euler = float(euler_density(a.double(), periodic=flags)) * math.prod(shape)
    assert sum((-1) ** k * b for k, b in enumerate(betti)) == round(euler)


@pytest.mark.parametrize("shape", [(20, 24), (9, 10, 8)])
def test_the_diagram_is_stable(shape):
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(1, *shape, generator=generator) < 0.6
    field = signed_distance(a)
    for size in (0.05, 0.4):
        noise = size * (2 * torch.rand(field.shape, generator=generator, dtype=torch.float64) - 1)
        one, two = sublevel_persistence(field)[0], sublevel_persistence(field + noise)[0]
        moved = [gudhi.bottleneck_distance(p, q) for p, q in zip(one.pairs, two.pairs, strict=True)]
        assert max(moved) <= float(noise.abs().max()) + 1e-12
        assert max(moved) > 0.5 * size


@pytest.mark.parametrize("flags", [(True, True), (False, True), (True, False, True)])
def test_signed_distance_equals_its_definition(flags):
    shape = (9, 12, 7)[: len(flags)]
    a = torch.rand(2, *shape, generator=torch.Generator().manual_seed(3)) < 0.3
    found = signed_distance(a, periodic=flags, voxel_size_um=0.5)
    points = np.indices(shape).reshape(len(shape), -1).T
    apart = np.abs(points[:, None] - points[None])
    for axis, (n, wrap) in enumerate(zip(shape, flags, strict=True)):
        if wrap:
            apart[..., axis] = np.minimum(apart[..., axis], n - apart[..., axis])
    distance = np.sqrt((apart**2).sum(-1))
    for inside, field in zip(a.flatten(1).numpy(), found.flatten(1).numpy(), strict=True):
        other = np.where(inside[:, None] != inside, distance, np.inf).min(1)
        expected = np.where(inside, 0.5 - other, other - 0.5) / 2
        assert field == pytest.approx(expected, abs=1e-12)
    assert torch.equal(signed_distance(~a, periodic=flags), -2 * found)


def test_moving_a_periodic_sample_changes_nothing():
    a = torch.rand(1, 16, 18, generator=torch.Generator().manual_seed(5)) < 0.5
    here, there = persistence_diagram(a)[0], persistence_diagram(a.roll((5, 11), (1, 2)))[0]
    for p, q in zip(here.pairs, there.pairs, strict=True):
        assert np.array_equal(np.sort(p, axis=0), np.sort(q, axis=0))


def diagram(*points):
    pairs = np.array(points, float).reshape(-1, 2)
    return PersistenceDiagram((pairs, np.zeros((0, 2)), np.zeros((0, 2))))


def test_an_image_holds_mass_place_and_spread_of_a_class():
    low, high, bins, spread = -10.0, 10.0, 100, 0.8
    image = persistence_image(
        [diagram((-2.0, 4.0)), diagram((-2.0, math.inf)), diagram((0.0, 5.0), (1.0, 3.0))],
        range_um=(low, high),
        bins=bins,
        spread_um=spread,
    )
    assert image.shape == (3, 2, bins, bins)
    assert not image[:, 1].any()
    # Weight: persistence over range.
    assert image[0].sum() == pytest.approx(6 / 20)
    assert image[2].sum() == pytest.approx((5 + 2 * 0.9937903) / 20, abs=1e-5)
    middle = torch.linspace(low, high, bins + 1, dtype=torch.float64)[:-1] + 0.1
    share = image[0, 0] / image[0, 0].sum()
    births, persistences = share.sum(1), share.sum(0)
    assert births @ middle == pytest.approx(-2)
    assert persistences @ (middle - low) == pytest.approx(6)
    variance = births @ (middle + 2) ** 2
    assert variance == pytest.approx(spread**2 + 0.2**2 / 12, rel=1e-6)
    # A class without death counts to the end of the range.
    assert image[1, 0].sum(0) @ (middle - low) / image[1, 0].sum() == pytest.approx(12)


def test_images_are_stable():
    # Adams et al. 2017, theorem 5: the L1 distance is at most
    # (sqrt(5) |grad w| + sqrt(10 / pi) |w| / spread) times the 1-Wasserstein distance.
    spread, span = 0.5, 20.0
    rng = np.random.default_rng(0)
    for step in (0.01, 0.1, 1.0):
        birth, persistence = rng.uniform(-6, 2), rng.uniform(1, 8)
        move = step * rng.uniform(-1, 1, 2)
        one, two = (
            diagram((birth + s * move[0], birth + persistence + s * move[1])) for s in (0, 1)
        )
        images = persistence_image([one, two], range_um=(-10, 10), bins=40, spread_um=spread)
        change = float((images[0] - images[1]).abs().sum())
        bound = math.sqrt(5) / span + math.sqrt(10 / math.pi) * 1.0 / spread
        assert 0 < change <= bound * float(np.abs(move).max())


def test_images_tell_fine_from_coarse_structures():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 48, 48, generator=generator, dtype=torch.float64)
    k = torch.fft.fftfreq(48).square()
    k = k[:, None] + k
    cells = []
    for length in (1.5, 3.0):
        smooth = torch.fft.ifft2(
            torch.fft.fft2(noise) * torch.exp(-2 * (math.pi * length) ** 2 * k)
        ).real
        cells.append(smooth > 0)
    images = persistence_image(persistence_diagram(torch.cat(cells)), range_um=(-8, 8))
    flat = images.flatten(1)
    apart = torch.cdist(flat, flat)
    own = torch.cat([apart[:8, :8], apart[8:, 8:]]).fill_diagonal_(0)
    assert apart[:8, 8:].mean() > 1.5 * own.sum() / (2 * 56)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="phase and a rest in every sample, got one alone in"):
        persistence_diagram(torch.ones(2, 4, 4))
    with pytest.raises(DataError, match="threshold"):
        persistence_diagram(torch.full((1, 4, 4), 0.5))
    with pytest.raises(DataError, match="voxel_size_um above 0"):
        signed_distance(torch.eye(4)[None], voxel_size_um=0.0)
    with pytest.raises(DataError, match="finite"):
        sublevel_persistence(torch.full((1, 4, 4), math.nan))
    with pytest.raises(DataError, match="batch"):
        persistence_diagram(torch.eye(4))
    one = persistence_diagram(torch.eye(4)[None])
    with pytest.raises(DataError, match="rising range_um"):
        persistence_image(one, range_um=(1.0, -1.0))
    with pytest.raises(DataError, match="0 diagrams"):
        persistence_image([], range_um=(-1.0, 1.0))
    with pytest.raises(DataError, match="bins of 1 or more"):
        persistence_image(one, range_um=(-1.0, 1.0), bins=0)

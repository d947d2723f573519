"""The two-point cluster function against its definition, closed forms and S2."""

import itertools
import math

import pytest
import torch

from microstructures import DataError
from physics.statistics import (
    cluster_correlation,
    label_clusters,
    radial_mean,
    two_point_cluster,
    two_point_correlation,
)

from .test_correlation import soft


def by_definition(a, **options):
    """The sum of the autocorrelations of every cluster alone."""
    periodic = options["periodic"]
    maps = []
    for labels in label_clusters(a, **options):
        alone = [labels == k for k in range(1, int(labels.max()) + 1)] or [labels > 0]
        maps.append(two_point_correlation(torch.stack(alone).double(), periodic=periodic).sum(0))
    return torch.stack(maps)


@pytest.mark.parametrize("shape", [(1, 7), (12, 11), (6, 5, 7)])
@pytest.mark.parametrize("pairs", [0, 16, 10**9])
def test_equals_its_definition_by_transforms_and_by_counting(shape, pairs, monkeypatch):
    monkeypatch.setattr(cluster_correlation, "PAIRS_PER_VOXEL", pairs)
    monkeypatch.setattr(cluster_correlation, "CHUNK", 500)
    for seed, flags in enumerate(itertools.product((True, False), repeat=len(shape))):
        for fraction, connectivity in ((0.0, 1), (0.3, 1), (0.55, len(shape)), (1.0, 1)):
            a = soft(shape, seed=seed) < fraction
            options = {"periodic": flags, "connectivity": connectivity}
            found = two_point_cluster(a, **options)
            assert torch.allclose(found, by_definition(a, **options), atol=1e-12)


@pytest.mark.parametrize("flags", [True, False])
def test_one_cluster_has_its_s2(flags):
    grids = torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij")
    ball = sum((g - 3.4) ** 2 for g in grids) < 40
    ball = ball.roll((-4, -4, -4), (0, 1, 2)) if flags else ball
    correlation = two_point_correlation(ball[None].double(), periodic=flags)
    assert torch.allclose(two_point_cluster(ball[None], periodic=flags), correlation, atol=1e-12)


def test_discs_apart_have_the_overlap_of_one_disc_with_itself():
    size, radius, count = 128, 9.5, 9
    grid = torch.arange(float(size), dtype=torch.float64)
    cell = torch.zeros(size, size, dtype=torch.bool)
    for x, y in itertools.product((10.3, 52.6, 94.9), repeat=2):
        cell |= (grid[:, None] - x) ** 2 + (grid - y) ** 2 < radius**2
    found = two_point_cluster(cell[None])
    s2 = two_point_correlation(cell[None].double())
    assert int(label_clusters(cell[None]).max()) == count
    # Beyond a diameter no two points share a disc, though S2 goes on.
    curve, plain = radial_mean(found, max_lag=40)[0], radial_mean(s2, max_lag=40)[0]
    r = torch.arange(20, dtype=torch.float64)
    lens = (
        2 * radius**2 * torch.acos((r / (2 * radius)).clamp(max=1))
        - r / 2 * (4 * radius**2 - r**2).clamp(min=0).sqrt()
    )
    assert torch.allclose(curve[:20], count * lens / size**2, atol=0.01 * float(curve[0]))
    assert float(curve[21:].abs().max()) == 0
    assert float(plain[36:].min()) > 0.02
    assert (found <= s2 + 1e-12).all()


def test_a_checkerboard_has_no_pairs_by_faces_and_all_by_corners():
    board = ((torch.arange(6)[:, None] + torch.arange(6)) % 2 == 0)[None]
    alone = torch.zeros(1, 6, 6, dtype=torch.float64)
    alone[0, 0, 0] = 0.5
    assert torch.equal(two_point_cluster(board), alone)
    by_corners = two_point_cluster(board, connectivity=2)
    assert torch.allclose(by_corners, two_point_correlation(board.double()), atol=1e-12)


@pytest.mark.parametrize("shape", [(80, 90), (24, 30, 28)])
def test_sum_over_lags_is_the_mean_cluster_size(shape):
    a = soft(shape, seed=3) < (0.5 if len(shape) == 2 else 0.3)
    found = two_point_cluster(a)
    sizes = [torch.bincount(labels.flatten())[1:].double() for labels in label_clusters(a)]
    expected = torch.stack([(s**2).sum() for s in sizes]) / math.prod(shape)
    assert torch.allclose(found.flatten(1).sum(1), expected, rtol=1e-12)
    assert (found <= two_point_correlation(a.double()) + 1e-12).all()


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="connectivity"):
        two_point_cluster(torch.ones(1, 4, 4), connectivity=0)
    with pytest.raises(DataError, match="batch"):
        two_point_cluster(torch.ones(4, 4))

"""Packings against the laws of hard discs and spheres, and of lattice points in them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from microstructures import ConvergenceError, DataError
from physics.processes.composites import FibreComposite, Filler, ParticleComposite
from physics.processes.particle_packing import draw_radii, filled_fraction, pack
from physics.statistics import specific_surface, two_point_correlation

DISCS = FibreComposite(filler=Filler((0.05, 0.65), (2.0, 8.0), (0.0, 0.4), (0.0, 1.0)))
SPHERES = ParticleComposite(filler=Filler((0.05, 0.6), (2.0, 8.0), (0.0, 0.4), (0.0, 1.0)))


def point(fraction, radius, variation=0.0, gap=0.0):
    return {
        "volume_fraction": fraction,
        "mean_radius_um": radius,
        "radius_cv": variation,
        "min_gap_um": gap,
    }


def distances(packing):
    """Return all centre distances to nearest images, and the sums of radii, by brute force."""
    first, second = np.triu_indices(len(packing.radii_um), 1)
    away = packing.centres_um[first] - packing.centres_um[second]
    away -= packing.cell_um * np.round(away / packing.cell_um)
    return np.linalg.norm(away, axis=1), packing.radii_um[first] + packing.radii_um[second]


@pytest.mark.parametrize(
    ("process", "shape", "asked"),
    [
        (DISCS, (160, 160), point(0.65, 4.0)),
        (DISCS, (160, 160), point(0.65, 4.0, 0.3)),
        (DISCS, (160, 128), point(0.65, 4.0, 0.1, 0.5)),
        (DISCS, (64, 64), point(0.65, 4.0)),
        (DISCS, (96, 96), point(0.2, 4.0, 0.4, 1.0)),
        (SPHERES, (40, 40, 40), point(0.55, 5.0)),
        (SPHERES, (40, 40, 32), point(0.55, 5.0, 0.2, 0.1)),
    ],
)
def test_packings_reach_their_fraction_and_keep_their_gap(process, shape, asked):
    packing = process.packings(asked, shape=shape, seed=0)[0]
    assert packing.fraction == pytest.approx(asked["volume_fraction"], rel=1e-12)
    distance, contact = distances(packing)
    assert (distance - contact).min() >= asked["min_gap_um"] - 1e-9
    assert packing.smallest_gap_um == pytest.approx((distance - contact).min(), abs=1e-9)
    # Sequential addition alone ends at 0.547 of discs and 0.384 of spheres.
    assert asked["volume_fraction"] < 0.5 or len(packing.radii_um) > 6


@pytest.mark.parametrize(
    ("fraction", "contact_law", "ndim", "n", "slack"),
    [
        (0.5, lambda f: (1 - 7 * f / 16) / (1 - f) ** 2, 2, 16, 0.0),  # Henderson 1975
        (0.65, lambda f: (1 - 7 * f / 16) / (1 - f) ** 2, 2, 5, 0.15),
        (0.3, lambda f: (1 - f / 2) / (1 - f) ** 3, 3, 14, 0.0),  # Carnahan and Starling 1969
    ],
)
def test_neighbours_are_those_of_the_hard_particle_fluid(fraction, contact_law, ndim, n, slack):
    # Pair counts in thin shells extrapolated to contact, where they give the pressure; the
    # error by leaving out one cell at a time.
    process, shape = (DISCS, (128, 128)) if ndim == 2 else (SPHERES, (32, 32, 32))
    packings = process.packings(point(fraction, 3.0), shape=shape, seed=1, n=n)
    edges = np.linspace(1, 1.16, 9)
    shells = np.diff(edges**ndim) * fraction * 2**ndim
    counts = []
    for packing in packings:
        distance, contact = distances(packing)
        pairs = np.histogram(distance / contact, edges)[0]
        counts.append(2 * pairs / (len(packing.radii_um) * shells))

    def contact_value(curves):
        middle = (edges[1:] + edges[:-1]) / 2 - 1
        return math.exp(np.polyfit(middle, np.log(np.mean(curves, axis=0)), 1)[-1])

    value = contact_value(counts)
    left_out = [contact_value(counts[:k] + counts[k + 1 :]) for k in range(n)]
    error = math.sqrt((n - 1) * np.var(left_out))
    assert error < 0.06 * contact_law(fraction)
    # Dense packings keep some of the contacts that swelling made.
    assert abs(value - contact_law(fraction)) < 4 * error + slack * contact_law(fraction)


@pytest.mark.parametrize(
    ("process", "shape", "asked", "scatter"),
    [
        (DISCS, (96, 96), point(0.5, 4.0, 0.1), lambda r: 0.4577 * r),
        (SPHERES, (32, 32, 32), point(0.35, 4.0, 0.1), lambda r: 0.8376 * r**2),
    ],
)
def test_voxel_fraction_scatters_as_lattice_points_do(process, shape, asked, scatter):
    # Kendall (1948): R/(2 pi^2) sum |k|^-3 in 2-D, by the same sum R^2/(2 pi^2) sum |k|^-4 in 3-D.
    packings = replace(process, sweeps=2).packings(asked, shape=shape, seed=2, n=30)
    error, variance = [], []
    for packing in packings:
        voxels = np.count_nonzero(packing.labels(shape))
        error.append(voxels - packing.fraction * math.prod(shape))
        variance.append(scatter(packing.radii_um / process.voxel_size_um).sum())
    normal = np.array(error) / np.sqrt(variance)
    assert abs(normal.mean()) < 4 / math.sqrt(len(normal))
    assert 0.7 < normal.std() < 1.3


def test_labels_cover_the_voxel_centres_of_their_particle():
    packing = SPHERES.packings(point(0.4, 3.0, 0.3), shape=(16, 20, 24), seed=3)[0]
    labels = packing.labels((16, 20, 24))
    grid = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in labels.shape), indexing="ij"), -1)
    expected = np.zeros_like(labels)
    for k, (centre, radius) in enumerate(zip(packing.centres_um, packing.radii_um, strict=True)):
        away = grid - centre
        away -= packing.cell_um * np.round(away / packing.cell_um)
        expected[(away**2).sum(-1) <= radius**2] = k + 1
    assert np.array_equal(labels, expected)


def test_cells_are_isotropic_with_the_surface_of_their_discs():
    # A gap of two voxels keeps discs apart in voxels too.
    asked = point(0.5, 4.0, 0.1, 1.0)
    n = 24
    packings = replace(DISCS, sweeps=10).packings(asked, shape=(96, 96), seed=4, n=n)
    fibres = torch.from_numpy(np.stack([p.labels((96, 96)) > 0 for p in packings])).double()
    s2 = two_point_correlation(fibres)
    # Lags of one length in different directions: 5 = |(3, 4)|, 10 = |(6, 8)|, 15 = |(9, 12)|.
    for axis_lag, (x, y) in ((5, (3, 4)), (10, (6, 8)), (15, (9, 12))):
        straight, oblique = s2[:, axis_lag, 0], (s2[:, x, y] + s2[:, x, -y]) / 2
        for other in (s2[:, 0, axis_lag], oblique):
            difference = straight - other
            assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(n)
    exact = np.array([2 * math.pi * p.radii_um.sum() / p.cell_um.prod() for p in packings])
    error = specific_surface(fibres, voxel_size_um=0.5).numpy() - exact
    assert abs(error.mean()) < 0.01 * exact.mean()


def test_radii_have_the_asked_mean_and_variation():
    cell = np.array([400.0, 400.0])
    radii = draw_radii(0.5, 4.0, 0.3, cell_um=cell, generator=torch.Generator().manual_seed(0))
    assert radii.mean() == pytest.approx(4.0, rel=0.01)
    assert radii.std() / radii.mean() == pytest.approx(0.3, rel=0.03)
    assert (np.diff(radii) <= 0).all()
    wide = filled_fraction(0.5, 4.0, 0.3, 0.6, ndim=2)
    assert wide == pytest.approx(0.5 * ((radii + 0.3) ** 2).sum() / (radii**2).sum(), rel=0.01)


def test_fibres_are_prisms_along_axis_2():
    asked = point(0.4, 4.0)
    section = DISCS.simulate(asked, shape=(40, 48), seed=5)[0]
    solid = DISCS.simulate(asked, shape=(40, 48, 6), seed=5)[0]
    assert solid.shape == (40, 48, 6)
    assert (solid.phases == section.phases[..., None]).all()
    assert (solid.channels["fibre_ids"] == section.channels["fibre_ids"][..., None]).all()


def test_cells_depend_on_seed_and_index_alone():
    asked = [point(0.6, 4.0, 0.1), point(0.3, 5.0, 0.2)]
    cells = DISCS.simulate(asked, shape=(48, 48), seed=6, n=2)
    alone = DISCS.simulate(asked[1], shape=(48, 48), seed=6, first=3)[0]
    assert np.array_equal(cells[3].channels["fibre_ids"], alone.channels["fibre_ids"])
    assert not np.array_equal(cells[2].phases, cells[3].phases)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match=r"at most 0\.8 of the cell"):
        DISCS.simulate(point(0.65, 4.0, 0.0, 1.0), shape=(64, 64), seed=0)
    with pytest.raises(DataError, match="at least one particle"):
        DISCS.simulate(point(0.05, 8.0), shape=(16, 16), seed=0)
    with pytest.raises(DataError, match="wider than its largest"):
        SPHERES.simulate(point(0.6, 6.5), shape=(10, 16, 16), seed=0)
    with pytest.raises(DataError, match="volume_fraction between"):
        SPHERES.simulate(point(0.9, 4.0), shape=(16, 16), seed=0)
    # Denser than the closest packing: no rounds of pushing can succeed.
    cell = np.full(2, math.sqrt(40 * math.pi / 0.95))
    with pytest.raises(ConvergenceError, match="expected 40 particles to fit"):
        pack(np.ones(40), cell_um=cell, generator=torch.Generator().manual_seed(0))

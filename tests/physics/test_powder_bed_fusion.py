"""Laser powder bed fusion: heat conduction, pool scaling, Tang's criterion, pores and grains."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

from microstructures import DataError
from physics.processes.columnar_growth import columnar_growth, crystal_axes
from physics.processes.melt_pool import Alloy, Beam, MeltPool, eagar_tsai, melt_pool, rosenthal
from physics.processes.powder_bed_fusion import PowderBedFusion
from physics.processes.scan_tracks import Block, lay_tracks
from physics.processes.texture import uniform_orientations

TITANIUM = Alloy()
SAFE = {"laser_power_w": 280.0, "scan_speed_mm_s": 1200.0, "hatch_um": 80.0, "layer_um": 30.0}


def test_a_point_source_gives_rosenthal_s_field():
    x, y, z = np.array([[-1e-4, -5e-4, 1e-5, -2e-3], [2e-5, 5e-5, 1e-5, 1e-4], [0, 3e-5, 1e-5, 0]])
    point = Beam(200.0, 1.0, radius_m=0.0)
    exact = rosenthal(x, y, z, beam=point, alloy=TITANIUM) - point.preheat_k
    got = eagar_tsai(x, y, z, beam=point, alloy=TITANIUM) - point.preheat_k
    assert np.allclose(got, exact, rtol=1e-9)
    # A beam of finite size differs by a share that falls with its radius squared.
    wide, narrow = (
        eagar_tsai(x, y, z, beam=Beam(200.0, 1.0, radius_m=r), alloy=TITANIUM) - point.preheat_k
        for r in (4e-6, 2e-6)
    )
    ratio = (wide - exact) / (narrow - exact)
    assert np.abs(ratio - 4).max() < 0.4


def test_eagar_and_tsai_solve_the_heat_equation_under_a_gaussian_flux():
    beam, h = Beam(200.0, 0.8), 1e-6
    a = TITANIUM.diffusivity_m2_s

    def t(x, y, z):
        return eagar_tsai(x, y, z, beam=beam, alloy=TITANIUM)

    for x, y, z in ((-6e-5, 3e-5, 4e-5), (2e-5, 0.0, 3e-5), (-3e-4, 2e-5, 5e-5)):
        six = t(x + h, y, z) + t(x - h, y, z) + t(x, y + h, z) + t(x, y - h, z)
        six += t(x, y, z + h) + t(x, y, z - h)
        conduction = a * (six - 6 * t(x, y, z)) / h**2
        motion = beam.speed_m_s * (t(x + h, y, z) - t(x - h, y, z)) / (2 * h)
        assert abs(conduction + motion) < 2e-3 * abs(motion)
    for x, y in ((0.0, 0.0), (2e-5, -3e-5), (-5e-5, 1e-5)):
        slope = (-3 * t(x, y, 0.0) + 4 * t(x, y, h) - t(x, y, 2 * h)) / (2 * h)
        flux = TITANIUM.absorptivity * beam.power_w * 2 / (math.pi * beam.radius_m**2)
        flux *= math.exp(-2 * (x**2 + y**2) / beam.radius_m**2)
        assert -TITANIUM.conductivity_w_m_k * slope == pytest.approx(flux, rel=5e-3)


def test_the_pool_is_the_melting_isotherm():
    beam = Beam(120.0, 1.2)
    pool = melt_pool(beam=beam, alloy=replace(TITANIUM, absorptivity=0.3))
    x = np.linspace(-6e-4, 1e-4, 2801)
    for y, z in ((pool.width_um / 2, 0.0), (0.0, pool.depth_um)):
        hottest = eagar_tsai(
            x, 1e-6 * y, 1e-6 * z, beam=beam, alloy=replace(TITANIUM, absorptivity=0.3)
        )
        assert hottest.max() == pytest.approx(TITANIUM.melting_temperature_k, abs=0.5)
    assert melt_pool(beam=beam, alloy=replace(TITANIUM, absorptivity=0.01)).width_um == 0


def test_width_and_depth_follow_their_scaling_laws():
    # A fast point source melts a half circle of area 2 A P / (e rho c v (Tm - T0)).
    beam = Beam(200.0, 20.0, radius_m=1e-7)
    pool = melt_pool(beam=beam, alloy=TITANIUM)
    rise = TITANIUM.melting_temperature_k - beam.preheat_k
    capacity = TITANIUM.density_kg_m3 * TITANIUM.heat_capacity_j_kg_k
    square = 8 * TITANIUM.absorptivity * 200 / (math.pi * math.e * capacity * 20 * rise)
    assert pool.width_um == pytest.approx(1e6 * math.sqrt(square), rel=0.01)
    conduction = melt_pool(beam=Beam(60.0, 1.0), alloy=TITANIUM)
    assert conduction.keyhole_number < 2.5
    assert conduction.depth_um < conduction.width_um / 2
    powers, speeds = (150.0, 250.0, 400.0), (0.4, 0.9, 1.8)
    pools = [[melt_pool(beam=Beam(p, v), alloy=TITANIUM) for v in speeds] for p in powers]
    depth = np.array([[pool.depth_um for pool in row] for row in pools])
    width = np.array([[pool.width_um for pool in row] for row in pools])
    for size in (depth, width):
        assert (np.diff(size, axis=0) > 0).all()
        assert (np.diff(size, axis=1) < 0).all()
    # Deep pools: depth + 0.56 r in proportion to P / sqrt(v).
    scaled = (depth + 0.56 * 50) * np.sqrt(speeds) / np.array(powers)[:, None]
    assert np.ptp(scaled[1:]) < 1e-6 * scaled.mean()


def tracks(pool, block, *, hatch, layer, shift=0.0, variation=0.0, seed=0):
    return lay_tracks(
        pool,
        block,
        hatch_um=hatch,
        layer_um=layer,
        shift=shift,
        variation=variation,
        correlation_um=100.0,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize(("hatch", "layer"), [(80, 30), (110, 30), (130, 45), (90, 85), (150, 60)])
def test_lack_of_fusion_is_what_stacked_half_ellipses_leave(hatch, layer):
    # Porosity 1 - (2/HL) int_0^L min(H/2, y(z)) dz, and none under the criterion of Tang et al.
    pool = MeltPool(140.0, 100.0, 0.0)
    block = Block((8 * hatch, 8 * layer, 1), 1.0, section=True)
    share = [
        1 - tracks(pool, block, hatch=hatch, layer=layer, seed=s).melt(block)[0].mean()
        for s in range(3)
    ]
    half = quad(
        lambda z: min(hatch / 2, 70 * math.sqrt(max(0, 1 - (z / 100) ** 2))), 0, layer, limit=200
    )[0]
    exact = 1 - 2 * half / (hatch * layer)
    criterion = (hatch / 140) ** 2 + (layer / 100) ** 2
    assert np.mean(share) == pytest.approx(exact, abs=0.1 * exact + 2e-4)
    assert (np.mean(share) > 0) == (criterion > 1)


def test_criterion_s_boundary_is_met_from_both_sides():
    pool, layer = MeltPool(140.0, 100.0, 0.0), 40.0
    edge = 140 * math.sqrt(1 - (layer / 100) ** 2)
    for hatch, dense in ((0.98 * edge, True), (1.02 * edge, False)):
        block = Block((700, 400, 1), 0.5, section=True)
        melted, _ = tracks(pool, block, hatch=hatch, layer=layer).melt(block)
        assert melted.all() == dense
        shifted, _ = tracks(pool, block, hatch=hatch, layer=layer, shift=0.5).melt(block)
        assert shifted.all()


def test_heat_flows_to_the_centre_line_along_the_normal_of_the_pool():
    pool = MeltPool(140.0, 100.0, 0.0)
    block = Block((280, 60, 1), 1.0, section=True)
    laid = tracks(pool, block, hatch=1000.0, layer=1000.0)
    only = {"tops_um": np.array([60.0]), "centres_um": np.array([[140.0]])}
    melted, slope = replace(laid, sizes=np.ones((1, 1, 1)), **only).melt(block)
    assert melted[140].all()
    assert melted[:, -1, 0].sum() == 140
    assert (slope == -slope[::-1]).all()
    assert (slope[melted][: melted.sum() // 3] > 0).all()
    # At x = -20 um and 50 um down the normal leans by (20/70^2)/(50/100^2).
    assert slope[119, 10, 0] == pytest.approx((20.5 / 70**2) / (49.5 / 100**2), rel=1e-9)


def test_keyhole_pores_have_the_same_share_in_sections_and_in_blocks():
    pool = MeltPool(150.0, 160.0, 20.0)
    expected = 1e-3 * 10 * 4 / 3 * math.pi * 8**3 * (1 + 1 / 9) ** 3 / (100 * 40)
    for block, n in (
        (Block((100, 120, 1), 2.0, section=True), 240),
        (Block((60, 60, 60), 3.0, section=False), 30),
    ):
        shares = []
        for seed in range(n):
            laid = tracks(pool, block, hatch=100.0, layer=40.0, seed=seed)
            generator = torch.Generator().manual_seed(1000 + seed)
            pores = laid.bottom_pores(block, per_mm=10.0, radius_um=8.0, generator=generator)
            shares.append(pores.mean())
        error = np.std(shares, ddof=1) / math.sqrt(n)
        assert error < 0.12 * expected
        assert abs(np.mean(shares) - expected) < 4 * error


def test_keyhole_pores_rest_on_the_bottom_of_their_pool():
    pool = MeltPool(150.0, 160.0, 20.0)
    for block in (Block((50, 200, 1), 2.0, section=True), Block((50, 200, 40), 2.0, section=False)):
        laid = tracks(pool, block, hatch=50.0, layer=200.0)
        generator = torch.Generator().manual_seed(0)
        pores = laid.bottom_pores(block, per_mm=400.0, radius_um=8.0, generator=generator)
        above = (block.centres_um(1)[pores.any((0, 2))] - (laid.tops_um[0] - 160.0)) % 200.0
        assert len(above) > 10
        # Hardly any pore is wider than four mean radii; a section may miss their lowest part.
        assert above.max() < 64
        assert above.min() < (2 if block.shape[2] > 1 else 8)


def test_blocks_are_cut_anywhere_out_of_the_build():
    block = Block((10, 10, 1), 5.0, section=True)
    laid = [
        tracks(MeltPool(9.0, 9.0, 0.0), block, hatch=70.0, layer=30.0, seed=s) for s in range(99)
    ]
    places = [t.centres_um[0, 0] % 70.0 / 70.0 for t in laid]
    heights = [t.tops_um[0] / 30.0 for t in laid]
    assert kstest(places, "uniform").pvalue > 1e-3
    assert kstest(heights, "uniform").pvalue > 1e-3


def test_pools_fluctuate_along_the_track_as_asked():
    block = Block((40, 40, 128), 10.0, section=False)
    laid = tracks(MeltPool(140.0, 100.0, 0.0), block, hatch=5.0, layer=5.0, variation=0.1)
    sizes = laid.sizes - 1
    assert sizes.std() == pytest.approx(0.1, rel=0.02)
    assert abs(sizes.mean()) < 0.002
    correlation = (sizes * np.roll(sizes, 10, axis=-1)).mean() / sizes.var()
    assert correlation == pytest.approx(math.exp(-0.5), abs=0.02)
    flat = tracks(laid.pool, replace(block, shape=(40, 40, 1)), hatch=5.0, layer=5.0, variation=0.1)
    assert flat.sizes.std() == pytest.approx(0.1, rel=0.05)


def porosity(**change):
    process = PowderBedFusion(lead_in_um=0.0)
    cells = process.simulate({**SAFE, **change}, shape=(64, 64), seed=1, n=6)
    return float(np.mean([c.phases.mean() for c in cells]))


def test_porosity_has_a_window_between_lack_of_fusion_and_keyholes():
    assert porosity() == 0
    by_hatch = [porosity(hatch_um=h, layer_um=60.0) for h in (100.0, 128.0, 140.0)]
    assert (np.diff(by_hatch) > 0).all()
    by_layer = [porosity(hatch_um=135.0, layer_um=layer) for layer in (30.0, 45.0, 60.0)]
    assert (np.diff(by_layer) > 0).all()
    slow = [
        porosity(laser_power_w=p, scan_speed_mm_s=v)
        for p, v in ((280.0, 1200.0), (400.0, 600.0), (400.0, 400.0))
    ]
    assert slow[0] == 0
    assert 0 < slow[1] < slow[2] < 0.1
    fast = porosity(laser_power_w=180.0, scan_speed_mm_s=1700.0, hatch_um=110.0)
    assert fast > 0.01


def test_crystal_axes_are_turned_from_crystal_to_sample():
    tilt = math.radians(40)
    axes = crystal_axes(np.array([[math.cos(tilt / 2), 0, 0, math.sin(tilt / 2)]]))[0]
    expected = [[math.cos(tilt), math.sin(tilt), 0], [-math.sin(tilt), math.cos(tilt), 0]]
    assert np.allclose(axes, [*expected, [0, 0, 1]])


def test_an_aligned_crystal_overgrows_a_tilted_one_at_its_rate():
    # Ahead by cos + sin - 1 per step up; a sideways step costs it sqrt 2 more than one up.
    for degrees in (15, 30):
        tilt = math.radians(degrees)
        quaternions = np.array([[1.0, 0, 0, 0], [math.cos(tilt / 2), 0, 0, math.sin(tilt / 2)]])
        floor = np.repeat([0, 1], 150)[:, None]
        grains = columnar_growth(
            np.ones((300, 400, 1), dtype=bool),
            np.zeros((300, 400, 1)),
            stray=np.zeros((300, 400, 1), dtype=bool),
            floor=floor,
            axes=crystal_axes(quaternions),
            periodic=(False, False, False),
        )
        gained = (grains[:, -1] == 0).sum() - 150
        rate = (math.cos(tilt) + math.sin(tilt) - 1) / math.sqrt(2)
        assert gained == pytest.approx(400 * rate, abs=2)


@pytest.mark.parametrize("shape", [(80, 200, 1), (32, 100, 32)])
def test_competition_selects_100_along_the_build(shape):
    generator = torch.Generator().manual_seed(0)
    axes = crystal_axes(uniform_orientations(400, generator=generator).numpy())
    lateral = (shape[0], shape[2])
    floor = torch.randint(400, lateral, generator=generator).numpy()
    grains = columnar_growth(
        np.ones(shape, dtype=bool),
        np.zeros(shape),
        stray=np.zeros(shape, dtype=bool),
        floor=floor,
        axes=axes,
        periodic=(True, False, True),
    )
    alignment = np.abs(axes[:, :, 1]).max(1)
    # Random crystals: the mean of the largest of three direction cosines.
    assert alignment.mean() == pytest.approx(0.832, abs=0.02)
    by_height = alignment[grains].mean((0, 2))
    assert by_height[-1] > by_height[shape[1] // 10] > by_height[0]
    assert by_height[-1] > 0.93


def mean_intercept(ids, axis):
    return ids.shape[axis] / (1 + (np.diff(ids, axis=axis) != 0).sum(axis).mean())


@pytest.mark.parametrize("shape", [(64, 64), (40, 48, 40)])
def test_grains_are_columns_along_the_build(shape):
    cells = PowderBedFusion().simulate(SAFE, shape=shape, seed=2, n=3)
    for cell in cells:
        ids = cell.channels["grain_ids"]
        lateral = [mean_intercept(ids, axis) for axis in range(len(shape)) if axis != 1]
        assert mean_intercept(ids, 1) > 1.5 * max(lateral)
    assert cells[0].periodic == (False, False, True)[: len(shape)]


def test_pores_belong_to_no_grain():
    process = {**SAFE, "laser_power_w": 200.0, "scan_speed_mm_s": 1600.0, "hatch_um": 120.0}
    cell = PowderBedFusion().simulate(process, shape=(48, 40, 12), seed=3)[0]
    pores, ids = cell.phases == 1, cell.channels["grain_ids"]
    assert 0.02 < pores.mean() < 0.3
    assert ((ids == 0) == pores).all()
    assert np.array_equal(np.unique(ids), np.arange(ids.max() + 1))
    orientations = cell.channels["orientations"]
    assert orientations.shape == (4, 48, 40, 12)
    assert np.allclose((orientations**2).sum(0), 1)
    assert (orientations[0][pores] == 1).all()
    for grain in range(1, ids.max() + 1, 7):
        assert np.ptp(orientations[:, ids == grain], axis=1).max() == 0


def test_metal_above_a_pore_is_filled_from_its_sides_or_starts_anew():
    solid = np.ones((9, 6, 1), dtype=bool)
    solid[2:7, 2] = False
    axes = np.eye(3)[None]
    common = {"axes": axes, "periodic": (False, False, False)}
    common["stray"] = np.zeros(solid.shape, dtype=bool)
    floor = np.zeros((9, 1), dtype=int)
    grains = columnar_growth(solid, np.zeros(solid.shape), floor=floor, **common)
    assert (grains[solid] == 0).all()
    assert (grains[~solid] == -1).all()
    solid[:, 2] = False
    grains = columnar_growth(solid, np.zeros(solid.shape), floor=floor, **common)
    assert (grains[:, :2] == 0).all()
    assert (grains[:, 3:] == 1).all()


def test_cells_depend_on_seed_and_index_alone():
    model = PowderBedFusion(lead_in_um=20.0)
    points = [SAFE, {**SAFE, "hatch_um": 130.0}]
    cells = model.simulate(points, shape=(24, 32), seed=6, n=2)
    alone = model.simulate(points[1], shape=(24, 32), seed=6, first=3)[0]
    assert np.array_equal(cells[3].channels["grain_ids"], alone.channels["grain_ids"])
    assert not np.array_equal(
        cells[2].channels["grain_ids"] % 7, cells[3].channels["grain_ids"] % 7
    )


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="laser_power_w between"):
        PowderBedFusion().simulate({**SAFE, "laser_power_w": 900.0}, shape=(16, 16), seed=0)
    with pytest.raises(DataError, match="expected values for"):
        PowderBedFusion().simulate({"hatch_um": 80.0}, shape=(16, 16), seed=0)
    dull = PowderBedFusion(alloy=replace(TITANIUM, absorptivity=0.01))
    with pytest.raises(DataError, match="no melt pool"):
        dull.simulate(SAFE, shape=(16, 16), seed=0)
    with pytest.raises(DataError, match="power and a speed above 0"):
        Beam(200.0, 0.0)

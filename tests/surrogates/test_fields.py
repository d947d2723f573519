"""FieldSurrogate: what holds for any weights, and what a saved model must survive."""

import dataclasses

import pytest
import torch

from microstructures import CheckpointError, DataError
from physics.mechanics import (
    IsotropicElastic,
    certify_elastic,
    compatible_strain,
    effective_stiffness,
)
from physics.mechanics.discretisation import staggered_problem
from surrogates import FieldSurrogate
from surrogates.evaluation import overlapping_discs
from surrogates.iterated import iterated
from surrogates.saved_nets import SHIPPED


def test_bracket_holds_the_converged_stiffness_of_every_cell(surrogate, blobs, materials):
    phases = torch.cat([blobs(6, seed=3), blobs(2, seed=4).roll(1, 1)])
    noise = torch.randint(2, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    phases = torch.cat([phases.long(), noise])
    found = surrogate.predict(phases, materials)
    exact = effective_stiffness(phases, materials, tolerance=1e-8).value
    for gap in (exact - found.lower, found.upper - exact):
        assert torch.linalg.eigvalsh(gap).min() > -1e-9
    assert ((found.lower + found.upper) / 2 - found.effective).abs().max() < 1e-12
    assert found.level == "discrete"


def test_strain_is_compatible_and_has_the_macroscopic_mean(surrogate, blobs, materials):
    macro = torch.tensor([[[1.0, 0.0, 0.0], [0.2, -0.3, 0.5]]]).expand(3, 2, 3)
    found = surrogate.predict(blobs(3, seed=5), materials, macro_strain=macro)
    assert found.strain.shape == (3, 2, 3, 16, 16)
    assert (found.strain.mean((-2, -1)) - macro).abs().max() < 1e-6
    again = compatible_strain(found.displacement, macro)
    assert torch.equal(again, found.strain)


def test_stress_is_the_law_of_the_strain_where_no_edges_are_mixed(surrogate, materials):
    # Stripes along axis 1: normal stresses live at the centres, with the voxel's own law.
    phases = torch.zeros(1, 16, 16, dtype=torch.long)
    phases[:, 8:] = 1
    found = surrogate.predict(phases, materials)
    for label, material in enumerate(materials):
        where = phases[0] == label
        wanted = material.stiffness(2).float() @ found.strain[0, 0][:, where]
        assert (found.stress[0, 0][:2, where] - wanted[:2]).abs().max() < 1e-5


def test_loads_combine_linearly(surrogate, blobs, materials):
    phases = blobs(2, seed=6)
    unit = surrogate.predict(phases, materials)
    macro = torch.tensor([[[0.1, -0.2, 0.3]]]).expand(2, 1, 3)
    mixed = surrogate.predict(phases, materials, macro_strain=macro)
    wanted = torch.einsum("blk,bk...->bl...", macro, unit.stress)
    assert (mixed.stress - wanted).abs().max() < 1e-5
    assert torch.equal(mixed.effective, unit.effective)


def test_even_shifts_commute(surrogate, blobs, materials):
    phases = blobs(2, seed=7)
    here = surrogate.predict(phases, materials)
    there = surrogate.predict(phases.roll((6, -4), (1, 2)), materials)
    assert (here.strain.roll((6, -4), (-2, -1)) - there.strain).abs().max() < 1e-5
    assert (here.effective - there.effective).abs().max() < 1e-5


def test_units_cancel(surrogate, blobs, materials):
    phases = blobs(2, seed=8)
    gpa = surrogate.predict(phases, materials)
    scaled = [
        IsotropicElastic(
            youngs_modulus_gpa=1000 * m.youngs_modulus_gpa, poisson_ratio=m.poisson_ratio
        )
        for m in materials
    ]
    mpa = surrogate.predict(phases, scaled)
    assert (gpa.strain - mpa.strain).abs().max() < 1e-5
    assert (mpa.effective / gpa.effective / 1000 - 1).abs().max() < 1e-3
    assert (gpa.distance - mpa.distance).abs().max() < 1e-3


def test_without_certificate_the_energy_is_the_upper_bound(surrogate, blobs, materials):
    phases = blobs(2, seed=9)
    sure = surrogate.predict(phases, materials)
    fast = surrogate.predict(phases, materials, certify=False)
    assert fast.lower is None
    assert fast.upper is None
    assert (fast.effective / sure.upper - 1).abs().max() < 1e-2
    assert (fast.effective - sure.upper).abs().max() < 1e-4 * sure.upper.max()


def test_parts_of_a_prediction_are_the_whole_ones(surrogate, blobs, materials):
    phases = blobs(2, seed=16)
    found = surrogate.predict(phases, materials, iterations=2)
    alone = surrogate.displacement(phases, materials, iterations=2)
    assert torch.equal(alone, found.displacement)
    assert torch.equal(surrogate.distance(phases, materials), found.distance)


def test_refine_reaches_the_solver_and_fractions_are_accepted(surrogate, blobs, materials):
    phases = blobs(2, seed=10)
    soft = torch.stack([1.0 - phases.float(), phases.float()], 1)
    fields = surrogate.refine(soft, materials, tolerance=1e-5)
    exact = effective_stiffness(phases, materials, tolerance=1e-7).value
    assert (fields.stress.mean((-2, -1)) - exact).abs().max() < 1e-4 * exact.max()


def test_three_dimensions_by_the_same_code(untrained, materials):
    cells = torch.stack([torch.zeros(16, 16, 16), torch.zeros(16, 16, 16)]).to(torch.uint8)
    cells[0, :8] = 1
    cells[1, :, 4:12, :6] = 1
    found = untrained(3, cells).predict(cells, materials)
    assert found.strain.shape == (2, 6, 6, 16, 16, 16)
    exact = effective_stiffness(cells, materials, tolerance=1e-6).value
    for gap in (exact - found.lower, found.upper - exact):
        assert torch.linalg.eigvalsh(gap).min() > -1e-9


def test_saved_and_loaded_predicts_the_same(surrogate, blobs, materials, tmp_path):
    surrogate.save_pretrained(tmp_path / "model", card="# tiny")
    again = FieldSurrogate.from_pretrained(tmp_path / "model")
    phases = blobs(2, seed=11)
    first, second = (s.predict(phases, materials) for s in (surrogate, again))
    for entry in dataclasses.fields(first):
        one, two = getattr(first, entry.name), getattr(second, entry.name)
        assert one == two if isinstance(one, str) else torch.equal(one, two)


def test_half_precision_weights_load_as_float32(surrogate, blobs, materials, tmp_path):
    surrogate.save_pretrained(tmp_path / "model", half=True)
    again = FieldSurrogate.from_pretrained(tmp_path / "model")
    phases = blobs(2, seed=12)
    first, second = (s.predict(phases, materials) for s in (surrogate, again))
    assert (first.strain - second.strain).abs().max() < 1e-2
    assert all(
        not p.is_floating_point() or p.dtype is torch.float32 for p in again.net.parameters()
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.md"])
def test_a_flipped_byte_is_refused(surrogate, name, tmp_path):
    folder = surrogate.save_pretrained(tmp_path / "model", card="# tiny")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        FieldSurrogate.from_pretrained(folder)


def test_unknown_name_lists_what_is_shipped():
    with pytest.raises(CheckpointError, match="expected a model folder"):
        FieldSurrogate.from_pretrained("no-such-model")


@pytest.mark.parametrize("side", [17, 18])
def test_odd_grids_are_refused(surrogate, materials, side):
    phases = torch.zeros(1, side, side, dtype=torch.long)
    phases[:, :5] = 1
    with pytest.raises(DataError, match="multiples of 4"):
        surrogate.predict(phases, materials)


def test_loads_that_do_not_fit_are_refused(surrogate, blobs, materials):
    phases = blobs(2, seed=13)
    with pytest.raises(DataError, match="macro_strain"):
        surrogate.predict(phases, materials, macro_strain=torch.ones(2, 1, 2))
    with pytest.raises(DataError, match="finite"):
        surrogate.predict(phases, materials, macro_strain=torch.full((2, 1, 3), torch.nan))


def test_distance_flags_what_was_never_seen(surrogate, blobs):
    material = [
        IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.25) for e in (1.0, 4.0, 400.0)
    ]
    checkerboard = torch.arange(16).view(-1, 1).add(torch.arange(16)).remainder(2)[None]
    near = surrogate.predict(blobs(4, seed=14), material, certify=False).distance
    far = surrogate.predict(checkerboard, material, certify=False).distance
    assert far.min() > 3 * near.max()
    contrast = surrogate.predict(2 * blobs(4, seed=14), material, certify=False).distance
    assert contrast.min() > 3 * near.max()
    larger = surrogate.predict(blobs(2, seed=15, side=32), material, certify=False).distance
    assert larger.min() > 1


def test_shipped_weights_bracket_an_unseen_family_tightly(materials):
    folder = SHIPPED / "elastic-2d-fno"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3.5e6
    shipped = FieldSurrogate.from_pretrained("elastic-2d-fno")
    discs = overlapping_discs(4, shape=(64, 64), seed=7)
    found = shipped.predict(discs, materials)
    exact = effective_stiffness(discs, materials, tolerance=1e-6).value
    for gap in (exact - found.lower, found.upper - exact):
        assert torch.linalg.eigvalsh(gap).min() > -1e-9
    assert ((found.upper - found.lower) / exact)[:, 0, 0].max() < 0.02
    assert (found.effective / exact - 1)[:, 0, 0].abs().max() < 1e-3
    assert (found.distance < 2).all()


@pytest.mark.parametrize("name", ["elastic-2d-fno", "elastic-2d-unet"])
def test_shipped_weights_are_a_start_at_high_contrast(name):
    shipped = FieldSurrogate.from_pretrained(name)
    discs = overlapping_discs(4, shape=(64, 64), seed=8)
    far = [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.3) for e in (1.0, 100.0)]
    exact = effective_stiffness(discs, far, tolerance=1e-6).value
    from_net = shipped.predict(discs, far, iterations=3)
    for gap in (exact - from_net.lower, from_net.upper - exact):
        assert torch.linalg.eigvalsh(gap).min() > -1e-9
    from_zero = certify_elastic(
        discs, far, displacement=iterated(staggered_problem(discs, far), None, 3)
    )
    own, solvers = ((b.upper - b.lower)[:, 0, 0] for b in (from_net, from_zero))
    assert own.mean() < 0.2 * solvers.mean()
    assert (from_net.effective / exact - 1)[:, 0, 0].abs().mean() < 0.005


def test_the_shipped_volume_net_brackets_and_beats_the_first_step():
    shipped = FieldSurrogate.from_pretrained("elastic-3d-fno")
    cells = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    cells[0, 4:12, 2:11, :9] = 1
    far = [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.3) for e in (1.0, 100.0)]
    exact = effective_stiffness(cells, far, tolerance=1e-6).value
    found = shipped.predict(cells, far)
    for gap in (exact - found.lower, found.upper - exact):
        assert torch.linalg.eigvalsh(gap).min() > -1e-9
    step = certify_elastic(
        cells, far, displacement=iterated(staggered_problem(cells, far), None, 1)
    )
    assert found.upper[0, 0, 0] < step.upper[0, 0, 0]

"""Measurements of samples: known shapes give known numbers, with units."""

import csv
import math

import numpy as np
import pytest

from microstructures import Microstructure
from studies.structure_measurements import (
    measure_names,
    measure_samples,
    publish_measurements,
)


def laths(*, periodic=True):
    """Two laths of 3 x 12 voxels along y and one voxel beside them, of 0.5 um."""
    phases = np.zeros((32, 32), np.uint8)
    phases[4:7, 5:17] = phases[20:23, 15:27] = 1
    phases[12, 12] = 1
    names = ("matrix", "lath")
    return Microstructure(phases, 0.5, periodic=(periodic,) * 2, phase_names=names)


def rows_of(*structures):
    return {(row["sample"], row["phase"]): row for row in measure_samples(structures)}


def test_laths_are_counted_and_measured():
    row = rows_of(laths())[0, "lath"]
    assert row["volume_fraction"] == pytest.approx(73 / 1024)
    assert (row["particles"], row["cut_particles"]) == (3, 0)
    lath = 2 * math.sqrt(36 / math.pi) * 0.5
    dot = 2 * math.sqrt(1 / math.pi) * 0.5
    assert row["mean_equivalent_diameter_um"] == pytest.approx((2 * lath + dot) / 3)
    assert row["mean_aspect_ratio"] == pytest.approx(4.0, rel=0.02)
    assert row["elongation"] == pytest.approx(1.0)
    assert [row["main_axis_x"], row["main_axis_y"]] == pytest.approx([0.0, 1.0], abs=1e-6)
    # Chords along y: three lines of 12 voxels per lath, and the dot.
    assert row["mean_chord_y_um"] == pytest.approx(0.5 * 73 / 7)


def test_units_follow_the_voxel_size():
    small, large = laths(), laths()
    large = Microstructure(
        large.phases, 1.0, periodic=large.periodic, phase_names=large.phase_names
    )
    one, two = rows_of(small)[0, "lath"], rows_of(large)[0, "lath"]
    assert two["mean_chord_x_um"] == pytest.approx(2 * one["mean_chord_x_um"])
    assert two["specific_surface_per_um"] == pytest.approx(one["specific_surface_per_um"] / 2)
    assert two["euler_density_per_um2"] == pytest.approx(one["euler_density_per_um2"] / 4)


def test_an_absent_phase_has_no_particles_and_particles_at_a_rim_are_cut():
    phases = np.zeros((16, 16), np.uint8)
    phases[0:3, 4:8] = 1
    rimmed = Microstructure(phases, periodic=(False, False), phase_names=("a", "b", "c"))
    rows = rows_of(rimmed)
    assert (rows[0, "b"]["particles"], rows[0, "b"]["cut_particles"]) == (1, 1)
    assert math.isnan(rows[0, "b"]["mean_equivalent_diameter_um"])
    assert rows[0, "c"]["particles"] == 0
    assert math.isnan(rows[0, "c"]["mean_chord_x_um"])


def test_volumes_go_the_same_way_and_the_table_reads_back(tmp_path):
    ball = np.indices((16, 16, 16)) - 7.5
    phases = ((ball**2).sum(0) < 25).astype(np.uint8)
    rows = list(measure_samples([Microstructure(phases), Microstructure(phases)]))
    assert list(rows[0])[2:] == measure_names(3)
    assert rows[1]["mean_equivalent_diameter_um"] == pytest.approx(10, rel=0.03)
    path = publish_measurements(tmp_path / "m.csv", rows)
    back = list(csv.DictReader(path.read_text().splitlines()))
    assert len(back) == 4
    assert float(back[1]["volume_fraction"]) == pytest.approx(phases.mean(), rel=1e-5)
    assert back[0]["phase"] == rows[0]["phase"]

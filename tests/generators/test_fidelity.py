"""Fidelity: a perfect generator has ratio one, a wrong one far more, counts are said."""

import json

import numpy as np
import pytest
import torch

from generators.fidelity import MEANING, compare
from microstructures import DataError
from physics.processes.random_field import RandomField

FIELD = RandomField()
POINT = {"volume_fraction": 0.3, "correlation_length_um": 3.0}


def cells(n, *, seed, shape=(48, 48), **changes):
    return FIELD.simulate({**POINT, **changes}, shape=shape, seed=seed, n=n)


def test_a_perfect_generator_has_ratio_one():
    reports = [compare(cells(32, seed=k), cells(48, seed=100 + k), seed=k) for k in range(24)]
    for name in MEANING:
        ratio = np.sqrt(np.mean([report[name].ratio ** 2 for report in reports]))
        assert 0.7 < ratio < 1.35, name
        assert all(r[name].low <= r[name].ratio <= r[name].high for r in reports)
    for name in ("surface", "euler"):
        rejected = np.mean([report[name].p_value < 0.05 for report in reports])
        assert rejected <= 0.2


def test_wrong_generators_are_seen_where_they_are_wrong():
    real = cells(48, seed=1)
    wrong = compare(real, cells(48, seed=2, volume_fraction=0.4))
    assert wrong["fraction"].error == pytest.approx(0.1, abs=0.03)
    assert wrong["s2"].low > 2
    coarse = compare(real, cells(48, seed=2, correlation_length_um=4.5))
    assert coarse["chi"].ratio > 4
    assert coarse["surface"].ratio > 4
    assert coarse["surface"].p_value < 1e-3
    assert coarse["fraction"].ratio < 3
    labels = np.stack([c.phases for c in real])
    # The same cells in another order are the same ensemble.
    same = compare(labels, labels[::-1].copy())
    assert all(metric.error < 1e-6 for metric in same.metrics)


def test_grouped_crops_have_a_wider_floor():
    rng = np.random.default_rng(0)
    maps = [cells(1, seed=k, volume_fraction=f)[0] for k, f in enumerate((0.2, 0.25, 0.35, 0.4))]
    crops, groups = [], []
    for k, source in enumerate(maps):
        for i, j in rng.integers(0, 24, (12, 2)):
            crops.append(source.phases[i : i + 24, j : j + 24])
            groups.append(f"map {k}")
    real = torch.from_numpy(np.stack(crops))
    made = real[torch.from_numpy(rng.permutation(48)[:30])]
    plain = compare(real, made, periodic=False)
    grouped = compare(real, made, groups=groups, periodic=False)
    assert grouped["fraction"].floor > 2 * plain["fraction"].floor
    assert grouped["surface"].p_value is None
    assert "halves by source" in grouped.counts
    assert "from 4 sources" in grouped.counts
    three = compare(real[:36], made, groups=groups[:36], periodic=False)
    assert "one source against the others" in three.counts
    one = compare(real[:12], made, groups=["only"] * 12, periodic=False)
    assert one["s2"].ratio is None
    assert one["s2"].floor is None
    assert "one source" in str(one)


def test_report_prints_and_is_json():
    report = compare(cells(8, seed=1, shape=(12, 12, 12)), cells(8, seed=2, shape=(12, 12, 12)))
    rows = report.table()
    assert [row[0] for row in rows[1:]] == list(MEANING)
    assert {len(row) for row in rows} == {len(rows[0])}
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["metrics"][1]["name"] == "s2"
    assert "8 generated against 8 real" in str(report)
    again = compare(cells(8, seed=1, shape=(12, 12, 12)), cells(8, seed=2, shape=(12, 12, 12)))
    assert again == report


def test_exact_fractions_leave_no_floor():
    exact = RandomField(exact_fraction=True)
    real = exact.simulate(POINT, shape=(32, 32), seed=0, n=8)
    report = compare(real, exact.simulate(POINT, shape=(32, 32), seed=1, n=8))
    assert report["fraction"].error < 1e-6
    assert report["chi"].ratio is not None
    json.dumps(report.to_json(), allow_nan=False)


def test_bad_input_is_refused():
    real = cells(6, seed=0)
    with pytest.raises(DataError, match="of one shape"):
        compare(real, cells(6, seed=0, shape=(24, 24)))
    with pytest.raises(DataError, match="at least 4 real"):
        compare(real[:3], real)
    with pytest.raises(DataError, match="a group for each of 6"):
        compare(real, real, groups=["a"])
    with pytest.raises(DataError, match="one shape"):
        compare([*real, *cells(1, seed=0, shape=(24, 24))], real)

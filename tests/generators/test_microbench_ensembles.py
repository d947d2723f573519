"""M1 to M5: known shifts give known errors, real against real has ratio one."""

import numpy as np
import pytest

from generators.microbench import MicroBenchScore, score_generator
from generators.microbench_conditions import Measured, TrueCondition
from generators.microbench_ensembles import Floors, ensemble_scores, fraction_score
from generators.microbench_held_out import held_out_ratio, inside_ranges
from generators.structure_statistics import StructureStatistics

LAGS, CONDITIONS, CELLS = 5, 12, 64


def measured(k, *, n, seed, shift=1.0, scatter=0.05, sides=1.0):
    """Samples of condition k: all statistics grow with k and scatter by `scatter`."""
    rng = np.random.default_rng([seed, k])
    noise = 1 + scatter * rng.standard_normal((n, 1, 1))
    phi = (0.3 + 0.02 * k) * noise
    s2 = phi**2 + phi * (1 - phi) * np.exp(-np.arange(LAGS) / 2)
    surface = shift * (1 + 0.1 * k) * (1 + scatter * rng.standard_normal((n, 1)))
    euler = (k - 5.5) * 0.01 + 0.01 * scatter * rng.standard_normal((n, 1))
    path = phi ** np.arange(1, LAGS + 1)
    c11 = shift * (2 + 0.1 * k) * (1 + scatter * rng.standard_normal(n))
    return Measured(StructureStatistics(s2, path, surface, sides * euler), {"c11": c11}, 0.4)


def truth(*, n=2 * CELLS, seed=1, **changes):
    return [
        TrueCondition({"k": float(k)}, measured(k, n=n, seed=seed, **changes), CELLS)
        for k in range(CONDITIONS)
    ]


def made(*, seed=2, **changes):
    return [measured(k, n=CELLS, seed=seed, **changes) for k in range(CONDITIONS)]


def test_real_against_real_has_ratio_one():
    real = truth()
    floors = Floors.of(real, made=CELLS, seed=0)
    for ours in (made(), [c.others for c in real]):
        for score in ensemble_scores(real, ours, floors, seed=0):
            assert 0.5 < score.ratio < 1.6, score.name
            assert score.low <= score.ratio <= score.high
            if score.ks_passed is not None:
                assert score.ks_passed > 0.7
        assert fraction_score(real, ours, floors).rmse < 2 * floors.fraction


def test_the_floor_is_that_of_two_means():
    # Two means of n samples with relative scatter s differ by s sqrt(2/n) (RMS).
    floors = Floors.of(truth(), made=CELLS, seed=0)
    column = floors.rms[:, floors.metrics.index("c11")]
    assert np.sqrt((column**2).mean()) == pytest.approx(0.05 * np.sqrt(2 / CELLS), rel=0.1)
    # Fewer real samples: halves of them, scaled to a comparison of 64 with 32.
    few = Floors.of(
        [TrueCondition(c.process, c.reference, CELLS // 2) for c in truth()], made=CELLS, seed=0
    )
    column = few.rms[:, few.metrics.index("c11")]
    expected = 0.05 * np.sqrt(1 / CELLS + 2 / CELLS)
    assert np.sqrt((column**2).mean()) == pytest.approx(expected, rel=0.15)


def test_known_shifts_give_known_errors():
    real = truth(scatter=1e-4)
    scores = {
        s.name: s
        for s in ensemble_scores(
            real,
            made(scatter=1e-4, shift=1.1, sides=1.5),
            Floors.of(real, made=CELLS, seed=0),
            seed=0,
        )
    }
    assert scores["surface"].error == pytest.approx(0.1, rel=1e-2)
    assert scores["c11"].error == pytest.approx(0.1, rel=1e-2)
    assert scores["c11"].ks_distance == 1.0
    assert scores["c11"].ks_passed == 0.0
    assert scores["s2"].error < 1e-3
    # The Euler density is near 0 in the middle: its scale is at least the spread of conditions.
    means = np.array([(k - 5.5) * 0.01 for k in range(CONDITIONS)])
    expected = np.mean(0.5 * abs(means) / np.maximum(abs(means), means.std()))
    assert scores["euler"].error == pytest.approx(expected, rel=1e-2)


def test_the_same_samples_have_no_error():
    real = truth()
    ours = [c.reference for c in real]
    for score in ensemble_scores(real, ours, Floors.of(real, made=CELLS, seed=0), seed=0):
        assert score.error == 0.0
        assert score.ratio == 0.0
        assert score.ks_passed in (None, 1.0)


def test_one_source_has_no_floor_and_maps_stay_whole():
    groups = ("a",) * 64 + ("b",) * 64
    grouped = [
        TrueCondition({}, measured(0, n=128, seed=1), 128, groups),
        TrueCondition({}, measured(1, n=128, seed=1), 128, ("only",) * 128),
    ]
    floors = Floors.of(grouped, made=CELLS, seed=0)
    assert np.isfinite(floors.rms[0]).all()
    # Two sources: every split is the same one.
    left, right = (
        measured(0, n=128, seed=1).statistics.part(s) for s in (slice(64), slice(64, 128))
    )
    difference = abs(left.fractions.mean() - right.fractions.mean())
    assert floors.rms[0, 0] == pytest.approx(difference)
    assert np.isnan(floors.rms[1]).all()
    scores = ensemble_scores(grouped, made()[:2], floors, seed=0)
    assert all(np.isfinite(s.error) and np.isfinite(s.ratio) for s in scores)


def test_held_out_conditions_are_compared_with_seen_ones():
    real = truth()
    inside = inside_ranges([c.process for c in real], {"k": [4, 6]})
    assert inside.sum() == 3
    ours = [
        measured(k, n=CELLS, seed=2, shift=1.2 if inside[k] else 1.0) for k in range(CONDITIONS)
    ]
    floors = Floors.of(real, made=CELLS, seed=0)
    found = held_out_ratio(real, ours, floors, inside, seed=0)
    assert found.worst in ("surface", "c11")
    assert found.ratio > 8
    assert found.median < 3
    assert (
        held_out_ratio(
            real, ours, floors, inside_ranges([c.process for c in real], {"k": [4, 4]}), seed=0
        )
        is None
    )


def test_the_score_is_plain_data_and_back():
    real = truth()
    floors = Floors.of(real, made=CELLS, seed=0)
    score = score_generator(real, made(), floors, seed=0)
    assert MicroBenchScore.from_json(score.to_json()) == score
    assert score.conditions == CONDITIONS
    assert score["c11"].error < 0.03
    assert score.distance_ratio == pytest.approx(1.0)
    assert 0.8 < score.coverage.coverage < 1.0
    assert score.energy_passed > 0.7
    assert score.slope.slope == pytest.approx(1.0, abs=0.1)


def test_a_condition_of_one_phase_has_no_chi_and_spoils_none():
    alone = np.ones((2 * CELLS, 1, LAGS))
    whole = StructureStatistics(alone, alone, np.zeros((2 * CELLS, 1)), np.zeros((2 * CELLS, 1)))
    last = Measured(whole, {"c11": np.linspace(1, 1.1, 2 * CELLS)}, 0.4)
    real = [*truth()[:-1], TrueCondition({"k": 11.0}, last, CELLS)]
    floors = Floors.of(real, made=CELLS, seed=0)
    scores = {s.name: s for s in ensemble_scores(real, made(), floors, seed=0)}
    without = {s.name: s for s in ensemble_scores(
        truth()[:-1], made()[:-1], floors.part(range(CONDITIONS - 1)), seed=0)}  # fmt: skip
    assert scores["chi"].error == pytest.approx(without["chi"].error)
    assert scores["chi"].ratio == pytest.approx(without["chi"].ratio)
    assert scores["s2"].error > 2 * without["s2"].error

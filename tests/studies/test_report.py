"""Reports: plain sentences, escaped texts, and the numbers behind the figures."""

import math

import numpy as np
import pytest
from scipy import stats

from studies.design_figures import von_mises
from studies.figures import axis_label
from studies.process_check import interval_of_mean
from studies.reach import all_mixtures, stiffness_interval
from studies.report import render
from studies.results import verdict
from studies.search import best_so_far

BASE = {
    "target": {"c11_gpa": 100.0},
    "achieved": {"c11_gpa": 99.0},
    "relative_miss": {"c11_gpa": 0.01},
    "within_2_percent": True,
    "gate": {"score": 0.8, "passed": True},
    "kept_to_all_constraints": True,
    "hashin_shtrikman": {"c11_gpa": {"any_fraction": [30.0, 240.0]}},
    "found_range": {"c11_gpa": [50.0, 120.0]},
    "process_check": {"skipped": "no simulator"},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "Reached: this structure"),
        ({"gate": {"score": 1.4, "passed": False}}, "No evaluated structure passed"),
        ({"kept_to_all_constraints": False}, "near the targets on average"),
        ({"target": {"c11_gpa": 300.0}}, "no isotropic structure of them has it"),
        ({"target": {"c11_gpa": 200.0}}, "outside what was found"),
        ({"target": {"c11_gpa": 110.0}}, "allow more evaluations"),
    ],
)
def test_the_verdict_says_plainly_what_was_reached(change, said):
    results = {**BASE, **change}
    miss = abs(results["achieved"]["c11_gpa"] / results["target"]["c11_gpa"] - 1)
    results |= {"relative_miss": {"c11_gpa": miss}, "within_2_percent": miss <= 0.02}
    sentences = verdict(results)
    assert any(said in sentence for sentence in sentences)
    assert sentences[0].startswith("Reached") == (change == {})
    assert "This process was not checked: no simulator." in sentences


def test_names_from_data_cannot_leave_the_page():
    evil = '<script>alert("x")</script>'
    page = {
        "condition": [(evil, evil)],
        "counts": evil,
        "heading": [evil],
        "rows": [[evil]],
        "meaning": {evil: evil},
        "phase_names": [evil, "b"],
        "grouped": True,
        "structures": "data:,",
        "curves": "data:,",
        "density": "data:,",
        "density_caption": evil,
        "own": {"control": None, "history": "", "memorisation": evil, "nearest": "data:,"},
    }
    text = render("fidelity.html.j2", page)
    assert "<script" not in text
    assert text.count("&lt;script") == 10


def test_the_interval_of_the_mean_is_students():
    sample = np.random.default_rng(0).normal(10, 2, 12)
    found = interval_of_mean(sample, target=10.0)
    low, high = stats.t.interval(0.95, 11, sample.mean(), stats.sem(sample))
    assert found["interval_95"] == pytest.approx([low, high])
    assert found["target_inside"] == (low <= 10 <= high)


def test_von_mises_of_simple_states():
    tension = np.zeros((6, 1, 1, 1))
    tension[0] = 3.0
    assert von_mises(tension).item() == pytest.approx(3.0)
    shear = np.zeros((6, 1, 1, 1))
    shear[5] = math.sqrt(2) * 2.0
    assert von_mises(shear).item() == pytest.approx(math.sqrt(3) * 2.0)
    plane = np.zeros((3, 1, 1))
    plane[0] = 3.0
    assert von_mises(plane, out_of_plane=np.zeros((1, 1))).item() == pytest.approx(3.0)


def test_the_best_so_far_counts_only_what_passes():
    assert best_so_far([0.5, 0.2, 0.4, 0.1], [False, True, True, False]) == [None, 0.2, 0.2, 0.2]


def test_mixtures_reach_from_phase_to_phase():
    from physics import IsotropicElastic

    soft = IsotropicElastic(youngs_modulus_gpa=20, poisson_ratio=0.33)
    stiff = IsotropicElastic(youngs_modulus_gpa=200, poisson_ratio=0.25)
    for dim in (2, 3):
        lower, upper = stiffness_interval(all_mixtures(2), [soft, stiff], dim)
        ends = [m.lame + 2 * m.shear for m in (soft, stiff)]
        assert [float(lower.min()), float(upper.max())] == pytest.approx(ends)
        assert bool((lower <= upper + 1e-9).all())


@pytest.mark.parametrize(
    ("name", "unit", "label"),
    [
        ("ageing_time_h", "h", "ageing time (h)"),
        ("temperature_k", "K", "temperature (K)"),
        ("composition", "-", "composition"),
        ("cooling", "-", "cooling"),
    ],
)
def test_labels_carry_the_unit_once(name, unit, label):
    assert axis_label(name, unit) == label

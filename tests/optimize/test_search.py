"""The model-based part of the search. BoTorch is slow: few asks, each for a reason."""

import math
import shutil
import statistics

import pytest
import torch

from microstructures import Parameter, ProcessSpace
from optimize import DesignSpace, Estimate, Study, random_trials

NEAR = 0.01
BUDGET = 28
SIX = DesignSpace(ProcessSpace([Parameter(f"x{i}", "-", 0.0, 1.0) for i in range(6)]))
TARGETS = {"c11_gpa": 170.0, "conductivity": 12.0}
GATE = {"gate": (None, 1.0)}


def alloy(parameters):
    """Two smooth properties of six coordinates and a gate that 11 % of the cube passes."""
    u = SIX.to_unit(parameters)
    c11 = 100 + 150 * u[0] * u[1] + 40 * math.sin(5 * u[2]) - 60 * (u[3] - 0.3) ** 2 + 10 * u[4]
    conductivity = 10 + 8 * u[1] - 6 * u[0] * u[4] + 3 * math.cos(4 * u[5])
    away = ((0, 0.7), (1, 0.4), (3, 0.6), (5, 0.2))
    gate = 8 * sum((u[i] - centre) ** 2 for i, centre in away)
    return {"c11_gpa": c11, "conductivity": conductivity, "gate": gate}


def evaluations_to(study, near):
    """Trials until a confirmed feasible one misses by less than `near`, at most BUDGET."""
    while len(study.trials) < BUDGET:
        for trial in study.ask(2):
            study.tell(trial, alloy(trial.parameters))
        best = study.best()
        if best is not None and -study.merit(best) < near:
            break
    return len(study.trials)


def random_best(seed, n):
    study = Study(SIX, TARGETS, GATE, seed=seed)
    for trial in random_trials(SIX, n, seed):
        study.attach(trial.parameters, alloy(trial.parameters))
    best = study.best()
    return float("inf") if best is None else -study.merit(best)


def test_the_target_is_reached_where_random_search_is_far():
    needed = [evaluations_to(Study(SIX, TARGETS, GATE, seed=s), NEAR) for s in range(3)]
    assert statistics.median(needed) <= 22
    # Ten times as many random trials do not come as near.
    assert statistics.median(random_best(s, 10 * BUDGET) for s in range(3)) > NEAR


def small(folder=None, n=5, seed=2, **more):
    """A study of the closed-form problem with `n` told initial trials."""
    study = Study(SIX, TARGETS, GATE, folder=folder, seed=seed, initial=n, **more)
    for trial in study.ask(n):
        study.tell(trial, alloy(trial.parameters))
    return study


def test_a_reloaded_study_asks_the_same_and_leaves_the_global_generator_alone(tmp_path):
    with small(tmp_path / "a") as study:
        study.ask()  # left pending
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    asked = []
    for name in "ab":
        torch.manual_seed(ord(name))
        before = torch.random.get_rng_state()
        with Study.load(tmp_path / name) as study:
            asked.append(study.ask(2))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert asked[0] == asked[1]
    points = [SIX.to_unit(t.parameters) for t in asked[0]]
    assert points[0] != points[1]


def test_a_batch_asks_different_points_and_keeps_away_from_failed_ones():
    study = small()
    trials = study.ask(3)
    for trial in trials:
        study.fail(trial, "the solver stopped")
    u = torch.tensor([SIX.to_unit(t.parameters) for t in trials + study.ask()])
    assert torch.pdist(u).min() > 0.05


def test_extremes_are_searched_along_their_front():
    study = Study(SIX, {"c11_gpa": "maximize", "gate": "minimize"}, seed=0, initial=6)
    for _ in range(2):
        for trial in study.ask(6):
            values = alloy(trial.parameters)
            study.tell(trial, {name: values[name] for name in study.goals.objectives})
    late = [t for t in study.pareto() if t.number >= 6]
    assert len(late) >= 3


def test_brackets_are_noise_and_statistical_values_guide_the_model():
    study = Study(SIX, TARGETS, GATE, seed=0, initial=2)
    for trial in random_trials(SIX, 8, 0):
        values = alloy(trial.parameters)
        c11 = values["c11_gpa"]
        values["c11_gpa"] = Estimate(c11, c11 - 20, c11 + 20, "statistical")
        study.attach(trial.parameters, values)
    assert study.best() is None
    assert len(study.ask()) == 1


def test_mixed_spaces_are_asked_at_valid_points(mixed):
    study = Study(mixed, {"a": "minimize"}, seed=0, initial=4)
    for trial in study.ask(4):
        study.tell(trial, {"a": trial.parameters["time_h"]})
    for trial in study.ask(2):
        assert mixed.canonical(trial.parameters) == trial.parameters


@pytest.mark.parametrize("case", ["duplicates", "constant", "two points", "huge", "tiny"])
def test_data_that_trouble_a_process_give_points_all_the_same(case):
    study = Study(SIX, {"a": 1.0}, {"b": (None, 1.0)}, seed=0, initial=1)
    spread = {"constant": 0.0, "huge": 1e300, "tiny": 1e-300}.get(case, 1.0)
    trials = random_trials(SIX, 2 if case == "two points" else 6, 0)
    for k, trial in enumerate(trials):
        point = trials[0] if case == "duplicates" else trial
        study.attach(point.parameters, {"a": 2.0 + k * spread, "b": k * spread})
    if case == "huge":
        with pytest.warns(RuntimeWarning, match="the told values make no model"):
            trials = study.ask(2)
    else:
        trials = study.ask(2)
    assert len(trials) == 2
    assert trials[0].parameters != trials[1].parameters


def test_one_told_point_is_no_model():
    study = Study(SIX, {"a": 1.0}, seed=0, initial=1)
    study.tell(study.ask()[0], {"a": 2.0})
    with pytest.warns(RuntimeWarning, match="fewer than two trials are told"):
        assert len(study.ask(2)) == 2


def test_a_known_optimum_is_not_asked_twice():
    """A discrete search repeats no point: it would teach nothing."""
    space = DesignSpace(ProcessSpace([Parameter("n", "-", 0.0, 40.0, "integer")]))
    study = Study(space, {"a": "maximize"}, seed=0, initial=3)
    for _ in range(6):
        for trial in study.ask():
            study.tell(trial, {"a": float(trial.parameters["n"])})
    assert study.best().parameters == {"n": 40}
    asked = [t.parameters["n"] for t in study.trials]
    assert len(set(asked)) == len(asked)

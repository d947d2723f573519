import math

import pytest
import torch

from microstructures import DataError
from optimize import Estimate, Study

GOALS = {"a": 10.0}
GATE = {"gate": (None, 1.0)}


@pytest.fixture
def study(mixed):
    return Study(mixed, GOALS, GATE, seed=1)


def attach(study, **values):
    parameters = study.space.from_unit([0.5] * study.space.dim)
    return study.attach(parameters, values)


def test_asked_trials_are_new_pending_points(study):
    trials = study.ask(3)
    assert [t.number for t in trials] == [0, 1, 2]
    assert study.pending() == trials
    assert len({str(t.parameters) for t in trials}) == 3
    assert study.best() is None
    assert study.pareto() == []


def test_a_script_may_take_a_trial_apart(study):
    (trial,) = study.ask()
    trial.parameters.pop("latent")
    assert "latent" in study.pending()[0].parameters
    study.tell(trial, {"a": 10.0, "gate": 0.0})
    assert study.best().number == 0


def test_best_is_the_smallest_miss(study):
    attach(study, a=12.0, gate=0.0)
    close = attach(study, a=9.9, gate=1.0)
    attach(study, a=9.9, gate=0.0)
    assert study.best() == close
    assert study.merit(close) == pytest.approx(-0.01)
    assert study.pareto() == [close, study.trials[2]]


def test_an_infeasible_trial_is_never_best(study):
    poor = attach(study, a=5.0, gate=1.0)
    exact = attach(study, a=10.0, gate=1.0001)
    assert study.best() == poor
    assert study.merit(exact) is None


def test_an_unconfirmed_value_is_never_best(study):
    poor = attach(study, a=5.0, gate=0.0)
    attach(study, a=Estimate(10.0, 10.0, 10.0, "statistical"), gate=0.0)
    attach(study, a=Estimate(10.0, 9.0, 11.0, "continuum"), gate=0.0)
    attach(study, a=10.0, gate=Estimate(0.5, 0.4, 0.6, "statistical"))
    assert study.best() == poor
    narrow = attach(study, a=Estimate(9.0, 8.99, 9.01, "discrete"), gate=0.0)
    assert study.best() == narrow


def test_an_unconfirmed_trial_may_be_told_again_a_confirmed_one_not(study):
    (trial,) = study.ask()
    study.tell(trial, {"a": Estimate(10.0, 9.0, 11.0, "statistical"), "gate": 0.0})
    assert study.best() is None
    study.tell(trial, {"a": 10.1, "gate": 0.0})
    assert study.best().values == {"a": 10.1, "gate": 0.0}
    with pytest.raises(DataError, match="trial 0 is told"):
        study.tell(trial, {"a": 10.0, "gate": 0.0})


def test_failed_and_abandoned_trials_are_over(study):
    one, two = study.ask(2)
    study.fail(one, "diverged")
    study.abandon(two)
    assert study.pending() == []
    assert [t.status for t in study.trials] == ["failed", "abandoned"]
    for act in (lambda: study.abandon(one), lambda: study.tell(two, {"a": 1.0, "gate": 0.0})):
        with pytest.raises(DataError, match="expected a pending trial"):
            act()


def test_extremes_have_a_front_and_no_best(mixed):
    study = Study(mixed, {"a": "maximize", "b": "minimize"}, seed=1)
    rows = [(1.0, 1.0), (2.0, 2.0), (1.5, 2.5), (2.0, 2.0), (0.5, 3.0)]
    trials = [attach(study, a=a, b=b) for a, b in rows]
    assert study.pareto() == [trials[0], trials[1], trials[3]]
    with pytest.raises(DataError, match=r"call pareto\(\)"):
        study.best()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"a": 1.0, "gate": 0.0, "c12_gpa": 1.0}, "unknown c12_gpa"),
        ({"a": 1.0}, "gate is missing"),
        ({"a": math.nan, "gate": 0.0}, "a to be a finite number, got nan"),
        ({"a": 1.0, "gate": math.inf}, "gate to be a finite number, got inf"),
        ({"a": 10**400, "gate": 0.0}, "a to be a finite number"),
        ({"a": True, "gate": 0.0}, "a to be a finite number, got True"),
    ],
)
def test_bad_values_are_refused_and_leave_the_trial_pending(study, values, sentence):
    (trial,) = study.ask()
    with pytest.raises(DataError, match=sentence):
        study.tell(trial, values)
    with pytest.raises(DataError, match=sentence):
        study.attach(trial.parameters, values)
    assert study.trials == [trial]


def test_numpy_numbers_are_numbers(study):
    value = torch.tensor([10.0], dtype=torch.float32).numpy()[0]
    study.attach(study.ask()[0].parameters, {"a": value.astype(float), "gate": 0})
    assert study.best().values == {"a": 10.0, "gate": 0.0}


def test_unknown_trials_and_counts_are_refused(study):
    with pytest.raises(DataError, match="the 0 trials of this study, got number 3"):
        study.abandon(3)
    with pytest.raises(DataError, match="at least one trial"):
        study.ask(0)
    with pytest.raises(DataError, match="initial"):
        Study(study.space, GOALS, initial=0)

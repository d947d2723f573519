"""The ladder: stops at the first rung that is sure enough, never trusts a stranger."""

from dataclasses import replace

import pytest
import torch

from microstructures import DataError
from physics.mechanics import effective_stiffness
from surrogates.ladder import Bracketed, FieldRung, SolverRung, evaluate


class Counted(SolverRung):
    """The solver as a rung that counts the cells it was asked about and is never sure."""

    asked = 0

    def evaluate(self, phases, materials, tolerance):
        type(self).asked += len(phases)
        found = super().evaluate(phases, materials, tolerance)
        return replace(found, trusted=torch.zeros(len(phases), dtype=torch.bool))


class Guess:
    """A rung that claims an interval of a given width, and trusts only even cells."""

    name, level = "guess", "statistical"

    def __init__(self, width, *, all_trusted=True):
        self.width, self.all_trusted = width, all_trusted

    def accepts(self, shape):
        return len(shape) == 2

    def evaluate(self, phases, materials, tolerance):
        value = torch.eye(3, dtype=torch.float64).expand(len(phases), 3, 3)
        trusted = torch.arange(len(phases)) % 2 == 0
        return Bracketed(
            value,
            value * (1 - self.width),
            value,
            torch.ones_like(trusted) if self.all_trusted else trusted,
            "statistical",
        )


def test_the_first_narrow_rung_answers(blobs, materials):
    phases = blobs(3, seed=60)
    found = evaluate(phases, materials, [Guess(0.3), Guess(0.005), SolverRung()], tolerance=0.01)
    assert [f.rung for f in found] == ["guess"] * 3
    assert all(f.level == "statistical" and f.cpu_ms >= 0 for f in found)


def test_untrusted_and_wide_intervals_fall_through_to_the_solver(blobs, materials):
    phases = blobs(4, seed=61)
    exact = effective_stiffness(phases, materials, tolerance=1e-8).value
    found = evaluate(
        phases, materials, [Guess(0.0005, all_trusted=False), SolverRung()], tolerance=1e-3
    )
    assert [f.rung for f in found] == ["guess", "solver", "guess", "solver"]
    for k in (1, 3):
        assert found[k].lower[0, 0] <= exact[k, 0, 0] <= found[k].upper[0, 0] * (1 + 1e-9)
        assert float(found[k].upper[0, 0] / found[k].lower[0, 0]) < 1.001
    sure = evaluate(
        phases, materials, [Guess(0.0005), SolverRung()], tolerance=1e-3, guaranteed=True
    )
    assert {f.rung for f in sure} == {"solver"}


def test_a_certified_net_answers_where_its_bracket_is_narrow(surrogate, blobs, materials):
    phases = blobs(2, seed=62)
    rungs = [FieldRung(surrogate), SolverRung()]
    assert {f.rung for f in evaluate(phases, materials, rungs, tolerance=0.9)} == {
        "field net and certificate"
    }
    assert {f.rung for f in evaluate(phases, materials, rungs, tolerance=1e-6)} == {"solver"}
    odd = torch.zeros(1, 17, 17, dtype=torch.uint8)
    odd[:, :9] = 1
    assert evaluate(odd, materials, rungs, tolerance=0.9)[0].rung == "solver"


def test_a_ladder_must_end_on_firm_ground(blobs, materials):
    with pytest.raises(DataError, match="end the ladder with the solver"):
        evaluate(blobs(1, seed=63), materials, [Guess(0.1)], tolerance=0.1, guaranteed=True)
    with pytest.raises(DataError, match="between 0 and 1"):
        evaluate(blobs(1, seed=63), materials, [SolverRung()], tolerance=0.0)


def test_a_rung_that_answers_none_of_the_first_is_not_asked_on(blobs, materials):
    phases = blobs(32, seed=65)
    found = evaluate(phases, materials, [Counted(), SolverRung()], tolerance=0.1)
    assert len(found) == 32
    assert Counted.asked == 8
    costs = [f.cpu_ms for f in found]
    assert min(costs[:8]) > max(costs[8:]) > 0


def test_conductivity_climbs_alike(blobs):
    phases = blobs(2, seed=64)
    found = evaluate(phases, [1.0, 5.0], [SolverRung("conductivity")], tolerance=1e-4)
    assert found[0].value.shape == (2, 2)
    assert 1.0 < float(found[0].value[0, 0]) < 5.0

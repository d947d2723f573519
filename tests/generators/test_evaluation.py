"""The evaluation of a generator: a perfect one sits at the floor, a biased one does not."""

from generators.evaluation import evaluate_generator, report_rows
from physics.processes import SpinodalDecomposition


class Truth:
    """The simulator itself as a generator, optionally aged too long."""

    def __init__(self, age=1.0):
        self.alloy, self.age = SpinodalDecomposition(), age

    def sample(self, process, *, n, shape, seed):
        hours = min(process["ageing_time_h"] * self.age, 6.0)
        return self.alloy.simulate({**process, "ageing_time_h": hours}, n=n, shape=shape, seed=seed)


def test_truth_is_at_the_floor_and_overageing_is_seen():
    scale = {"shape": (32, 32), "points": 4, "cells": 16}
    alloy = SpinodalDecomposition()
    true = evaluate_generator(Truth(), alloy, **scale)
    aged = evaluate_generator(Truth(age=3.0), alloy, **scale)
    assert true.s2_ratio < 2
    assert true.surface_ratio < 2
    assert 0.5 < true.fraction_spread < 2
    assert aged.surface_ratio > 2 * true.surface_ratio
    assert len(report_rows(true)) == 17

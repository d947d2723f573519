"""Learning curves: labels to an error, rules that repeat no cell, and what the pools hold."""

import json
import math

import numpy as np
import pytest
import torch

from studies.learning_curves import RULES, labels_needed, learning_curve
from studies.settings import SurrogateBenchSettings
from studies.surrogate_pool import PoolExtent

SIZES = [10, 20, 40, 80]


def test_labels_to_an_error_are_read_off_a_power_law():
    errors = np.array(SIZES, dtype=float) ** -0.5
    assert labels_needed(errors, SIZES, 30**-0.5) == pytest.approx(30)
    assert labels_needed(errors, SIZES, 1.0) == 10
    assert math.isinf(labels_needed(errors, SIZES, 0.01))
    # A curve that comes back up has not reached the error where it first touched it.
    assert labels_needed(np.array([0.3, 0.1, 0.3, 0.1]), SIZES, 0.2) > 40


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_starts_alike_and_labels_each_cell_once(rule):
    features = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    spread, asked = 0.1 + features[:, 0], []

    def learn(known):
        asked.append(known)
        return [1.0], spread

    found, known = learning_curve(
        RULES[rule], learn, SIZES, features=features, width=spread, seed=2
    )
    assert [len(rows) for rows in asked] == SIZES
    assert len(found) == len(SIZES)
    assert len(known.unique()) == SIZES[-1]
    learning_curve(RULES["at random"], learn, SIZES, features=features, width=spread, seed=2)
    assert torch.equal(asked[0], asked[len(SIZES)]), "the first cells are those of the seed"


def test_the_lopsided_pool_is_what_the_page_says():
    for quick in (False, True):
        extent = PoolExtent.of(SurrogateBenchSettings(quick=quick))
        common, *rare = extent.groups()
        assert common.contrast == (3.0, 10.0)
        assert {group.contrast for group in rare} == {(30.0, 100.0)}
        share = extent.common / (extent.common + len(rare) * extent.rare_in_lopsided)
        assert share == pytest.approx(0.85 if not quick else 0.71, abs=0.01)


def test_the_chapter_says_what_was_labelled_and_what_it_saved(command, tmp_path):
    words = ["bench", "surrogates", "--quick", "--chapter", "active", "--out", tmp_path / "run"]
    code, _, err = command(*words)
    assert code == 0, err
    section = json.loads((tmp_path / "run/results.json").read_text())["sections"]["active"]
    for name, facts in section["facts"].items():
        assert set(facts["errors"]) <= set(RULES)
        for rule, labelled in facts["labelled"].items():
            assert sum(labelled[0]) == facts["sizes"][-1], (name, rule)
        first = {errors[0][0][0] for errors in facts["errors"].values()}
        assert len(first) == 1, "all rules start from the same cells"
    even = section["facts"]["Gaussian process, even pool"]
    assert even["shares"] == [0.25] * 4
    assert section["bars"] or "learnt nothing" in json.dumps(section["tables"])

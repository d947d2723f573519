"""The benchmark: bars from rows, results and page, and resuming without measuring again."""

import dataclasses
import json

import pytest

from microstructures import DataError
from studies.bench import Bar, Section, run_bench
from studies.bench_page import copy_page
from studies.bench_physics import physics_sections
from studies.closed_forms import closed_forms, order_of_convergence, scheme_errors
from studies.settings import BenchSettings
from studies.stopwatch import machine_description, race

QUICK = BenchSettings(quick=True, repetitions=1, certificate_cells=10)


def sections(*names):
    return [section for section in physics_sections() if section.name in names]


def test_certificates_are_measured_written_and_not_measured_twice(tmp_path, capsys):
    chosen = sections("certificates")
    results = run_bench(chosen, QUICK, tmp_path / "run")
    bars = results["sections"]["certificates"]["bars"]
    assert bars[-1]["name"] == "cells outside: all"
    assert bars[-1]["measured"].startswith("0 of 10")
    assert all(bar["met"] for bar in bars)
    assert json.loads((tmp_path / "run/results.json").read_text()) == results
    page = (tmp_path / "run/page/README.md").read_text()
    assert "Toy sizes" in page
    assert machine_description()["processor"] in page
    assert "cells outside: all" in capsys.readouterr().out

    def never(settings: BenchSettings) -> list[object]:
        raise AssertionError("measured again")

    again = [dataclasses.replace(section, measure=never) for section in chosen]
    assert run_bench(again, QUICK, tmp_path / "run") == results
    copied = copy_page(tmp_path / "run", tmp_path / "page")
    assert (copied / "README.md").read_text() == page
    with pytest.raises(DataError, match="certificate_cells"):
        run_bench(chosen, QUICK.model_copy(update={"certificate_cells": 11}), tmp_path / "run")


def test_a_missed_bar_says_so(tmp_path):
    slow = Section(
        "slow",
        "Slow",
        "A rival that wins.",
        lambda settings: [{"ratio": 0.5}],
        lambda rows: [Bar("speed", "at least 1 x", f"{rows[0]['ratio']} x", rows[0]["ratio"] >= 1)],
    )
    run_bench([slow], QUICK, tmp_path / "run")
    row = next(
        line
        for line in (tmp_path / "run/page/README.md").read_text().splitlines()
        if "speed" in line
    )
    assert row.endswith("| missed |")


def test_the_closed_forms_are_approached_at_their_orders():
    case = next(case for case in closed_forms() if case.name == "square inclusions")
    rows = scheme_errors(case, largest=64)
    assert {row.side for row in rows} == {32, 64}
    assert order_of_convergence(rows, "rotated") > 2.5
    assert 1.3 < order_of_convergence(rows, "q1") < 1.6
    assert abs(rows[-1].error) < 2e-3


def test_a_race_ranks_more_work_as_slower():
    ranked = race({"little": lambda: sum(range(1000)), "much": lambda: sum(range(1_000_000))})
    assert ranked["much"] > 10 * ranked["little"]


def test_the_verb_shows_its_plan(mesoforge, tmp_path):
    code, out, _ = mesoforge("bench", "physics", "--quick", "--dry-run", "--out", tmp_path / "run")
    assert code == 0
    assert "minutes" in out
    assert not (tmp_path / "run").exists()

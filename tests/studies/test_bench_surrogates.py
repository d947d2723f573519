"""The surrogates' benchmark at toy size: chapters, bars, the page, and resuming."""

import json

import pytest
import torch

from studies.run_folder import open_run
from studies.settings import SurrogateBenchSettings
from studies.surrogate_accuracy import errors, fitted_ridge, net_settings, training_labels
from studies.surrogate_cells import family_cells, solved_cells
from surrogates.descriptor_rung import DescriptorRung
from surrogates.ladder import SolverRung, evaluate

QUICK = SurrogateBenchSettings(quick=True)
WORDS = ["bench", "surrogates", "--quick", "--chapter", "accuracy", "rungs", "attention"]


@pytest.fixture(scope="module")
def place(command, tmp_path_factory):
    """A finished toy benchmark of the property net's accuracy."""
    folder = tmp_path_factory.mktemp("bench")
    code, _, err = command(*WORDS, "--out", folder / "run", "--page", folder / "page")
    assert code == 0, err
    return folder


def test_the_page_has_errors_bars_and_coverage(place):
    results = json.loads((place / "run/results.json").read_text())
    section = results["sections"]["accuracy"]
    facts = section["facts"]["100"]
    # More labels and the solver's first steps each help the ridge, whatever the toy net does.
    assert facts["ridge"]["mean"] < section["facts"]["50"]["ridge"]["mean"]
    assert facts["ridge_with_steps"]["mean"] < 0.5 * facts["ridge"]["mean"]
    shares = [sum(found) / len(found) for found in facts["coverage"].values()]
    assert shares == sorted(shares)
    asked = {bar["name"]: bar for bar in section["bars"]}
    ratio = asked["error over the ridge's, 100 cells, net"]
    assert ratio["met"] is (facts["net"]["mean"] <= 0.5 * facts["ridge"]["mean"])
    page = (place / "page/README.md").read_text()
    assert page == (place / "run/page/README.md").read_text()
    assert "Toy sizes" in page
    assert "elastic-2d-fno: weights" in page
    assert (place / "page/accuracy-1.png").stat().st_size > 1000


def test_the_ladder_and_the_saliency_are_measured_against_the_solver(place):
    sections = json.loads((place / "run/results.json").read_text())["sections"]
    facts = sections["rungs"]["facts"]
    strict = facts["together"]["0.001"]
    assert strict["shares"]["descriptor ridge"] == strict["shares"]["property net"] == 0
    assert strict["inside"] == 1, "what is guaranteed holds"
    assert facts["alone"]["solver, 0.1 %"]["width"] < facts["alone"]["solver, 1 %"]["width"]
    found = sections["attention"]["facts"]
    for kind, sign in (("deletion", 1), ("insertion", -1)):
        exact, random = (found[kind][name]["0.1"] for name in ("exact sensitivity", "at random"))
        assert sign * exact < sign * random
    for kind in ("net's gradient", "first steps' gradient"):
        assert min(found["correlation"][kind]["all voxels"]) > 0.8


def test_a_finished_chapter_is_read_not_measured(place, command, monkeypatch):
    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("studies.surrogate_accuracy._measure", never)
    before = (place / "run/results.json").read_text()
    code, _, err = command(*WORDS, "--out", place / "run")
    assert code == 0, err
    assert (place / "run/results.json").read_text() == before
    code, _, err = command(*WORDS, "--out", place / "run", "--seed", 1)
    assert code == 2
    assert "seed" in err


def test_an_unknown_chapter_is_refused(mesoforge, tmp_path):
    code, _, err = mesoforge("bench", "surrogates", "--chapter", "speed", "--out", tmp_path / "run")
    assert code == 2
    assert "accuracy" in err
    assert not (tmp_path / "run").exists()


def test_the_descriptor_rung_covers_what_it_claims_and_knows_strangers(place, materials):
    with open_run(place / "run", QUICK, verb="bench surrogates") as run:
        labels = training_labels(100, QUICK, run)
        cells = family_cells(run, "spinodal", first=7000, count=24, side=16)
        chosen = net_settings(100, QUICK)
        held_out = solved_cells(run, "accuracy-test", cells, chosen)
        assert errors(fitted_ridge(100, QUICK, run).predict(held_out), held_out)["mean"] < 0.2
    rung = DescriptorRung.fit(labels, held_out, steps=2)
    loose = evaluate(cells.phases, materials, [rung, SolverRung()], tolerance=0.5)
    assert sum(answer.rung == "descriptor ridge" for answer in loose) > 12
    for answer in loose:
        assert torch.linalg.eigvalsh(answer.upper - answer.lower).max() > 0
    stranger = torch.zeros(1, 16, 16, dtype=torch.uint8)
    stranger[:, 0, 0] = 1
    (found,) = evaluate(stranger, materials, [rung, SolverRung()], tolerance=0.5)
    assert found.rung == "solver"
    assert not rung.accepts((32, 32))


@pytest.fixture
def materials():
    from physics import IsotropicElastic

    return [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.3) for e in (1.0, 10.0)]

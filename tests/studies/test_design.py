"""The design study from end to end, with tiny models of 16 x 16 cells."""

import base64
import json
import re
import shutil
from dataclasses import replace

import pytest
import yaml

from microstructures import (
    DataError,
    MicrostructureDataset,
    Parameter,
    ProcessSpace,
    read_microstructure,
)
from physics import CorrelationGate
from studies.evaluation import Evaluator
from studies.models import load_models
from studies.settings import DesignSettings

pytestmark = pytest.mark.slow
STAGES = {"search", "random", "confirmation", "family", "process-check", "window"}
FILES = ("results.json", "timings.json", "report.html", "design.vtkhdf", "settings.yaml")


def words(workshop, out, *more):
    return [
        *("design", "--out", out, "--shape", 16, 16, "--evaluations", 8, "--process-checks", 3),
        *("--window-points", 2, "--window-samples", 1, "--generator", workshop / "generator"),
        *("--gate", workshop / "gate", "--field-surrogate", workshop / "surrogate", *more),
    ]


@pytest.fixture(scope="module")
def run(workshop, command, tmp_path_factory):
    """A finished design."""
    folder = tmp_path_factory.mktemp("design") / "run"
    code, _, err = command(*words(workshop, folder))
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def results(run):
    return json.loads((run / "results.json").read_text())


def test_a_design_leaves_everything_it_promises(run, results):
    assert all((run / name).is_file() for name in FILES)
    assert {path.name for path in (run / "stages").iterdir()} == STAGES
    assert set(results["target"]) == set(results["achieved"]) == {"c11_gpa", "conductivity_w_mk"}
    assert results["evaluations"]["total"] == results["evaluations"]["random"]["total"] == 8
    rungs = results["evaluations"]
    assert rungs["surrogate"] + rungs["solver"] + rungs["failed"] == rungs["total"]
    assert results["process_check"]["properties"]["c11_gpa"]["n"] == 3
    assert set(json.loads((run / "timings.json").read_text())["seconds"]) == STAGES


def test_brackets_hold_the_achieved_value(results):
    for name, value in results["achieved"].items():
        bracket = results["bracket"][name]
        assert bracket["lower"] <= value * (1 + 1e-9)
        assert value <= bracket["upper"] * (1 + 1e-9)
        low, high = results["hashin_shtrikman"][name]["any_fraction"]
        assert low <= value <= high


def test_every_number_says_whose_it_is(results):
    assert results["scope"]["achieved"].startswith("this structure's")
    assert results["scope"]["process_check"].startswith("this process's")
    assert any(s.startswith("This process") for s in results["verdict"])


def test_the_design_file_holds_the_achieved_structure_and_its_fields(run, results):
    design = read_microstructure(run / "design.vtkhdf")
    assert design.process == pytest.approx(results["process"])
    assert design.volume_fractions.tolist() == pytest.approx(results["volume_fractions"])
    stress = design.channels["stress_gpa"][0].mean()
    assert stress == pytest.approx(0.01 * results["achieved"]["c11_gpa"], rel=1e-5)


def test_the_report_is_one_file_with_sound_pictures(run):
    page = (run / "report.html").read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 8
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    assert "this structure" in page
    assert "this process" in page


def test_repeating_a_finished_run_changes_nothing(workshop, command, run):
    before = (run / "results.json").read_bytes(), (run / "report.html").read_bytes()
    code, _, err = command(*words(workshop, run))
    assert code == 0, err
    assert ((run / "results.json").read_bytes(), (run / "report.html").read_bytes()) == before


def test_an_interrupted_run_resumes_to_the_same_results(workshop, command, run, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(run, torn)
    for name in STAGES:
        shutil.rmtree(torn / "stages" / name)
    (torn / "results.json").unlink()
    # The kill came between two evaluations of a batch: the journal ends there.
    journal = torn / "search" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-3]))
    code, _, err = command(*words(workshop, torn))
    assert code == 0, err
    assert (torn / "results.json").read_bytes() == (run / "results.json").read_bytes()


def test_other_settings_on_the_same_folder_are_refused(workshop, command, run):
    code, _, err = command(*words(workshop, run, "--seed", 7))
    assert code == 2
    assert "seed: 0" in err


def test_the_report_is_rendered_again_from_the_run(command, run):
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    code, _, err = command("report", run)
    assert code == 0, err
    assert (run / "report.html").read_bytes() == page


def test_an_unreachable_target_is_said_plainly(workshop, command, tmp_path):
    out = tmp_path / "far"
    code, _, err = command(*words(workshop, out, "--target-c11-gpa", 900))
    assert code == 0, err
    results = json.loads((out / "results.json").read_text())
    assert not results["within_2_percent"]
    (said,) = [s for s in results["verdict"] if "Hashin-Shtrikman" in s]
    assert "900" in said
    assert f"{results['achieved']['c11_gpa']:.4g}" in said
    assert "Hashin-Shtrikman" in (out / "report.html").read_text()


def test_a_dry_run_of_a_design_writes_nothing(workshop, command, tmp_path):
    code, out, err = command(*words(workshop, tmp_path / "dry", "--dry-run"))
    assert code == 0, err
    plan = yaml.safe_load(out)
    assert plan["evaluations"] == 8
    assert set(plan["expected"]) == {"memory_mb", "disk_mb", "minutes"}
    assert list(tmp_path.iterdir()) == []


def test_models_that_do_not_fit_each_other_are_refused(workshop):
    models = load_models(
        DesignSettings(
            generator=str(workshop / "generator"),
            gate=str(workshop / "gate"),
            field_surrogate=str(workshop / "surrogate"),
        )
    )
    settings = DesignSettings(shape=(16, 16))
    Evaluator(models, settings).check()
    larger_gate = replace(models, gate=replace(models.gate, shape=(20, 16)))
    with pytest.raises(DataError, match=r"at least \(20, 16\).*got \(16, 16\)"):
        Evaluator(larger_gate, settings).check()
    coarser = replace(models, gate=replace(models.gate, voxel_size_um=1.0))
    with pytest.raises(DataError, match="voxel size"):
        Evaluator(coarser, settings).check()
    narrow = ProcessSpace([Parameter("composition", "-", 0.4, 0.5)])
    with pytest.raises(DataError, match="does not know the generator's process"):
        Evaluator(replace(models, gate=replace(models.gate, space=narrow)), settings).check()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--youngs-modulus-gpa", 1, 2, 3], "youngs_modulus_gpa"),
        (["--conductivity-w-mk", 1], "conductivity_w_mk"),
        (["--youngs-modulus-gpa", 0, 0], "youngs_modulus_gpa"),
        (["--simulator", "random-field"], "simulator"),
    ],
)
def test_a_design_that_cannot_start_writes_nothing(workshop, command, tmp_path, more, said):
    code, _, err = command(*words(workshop, tmp_path / "out"), *more)
    assert code == 2
    assert said in err
    assert not (tmp_path / "out").exists()


def test_a_shape_that_the_generator_cannot_make_is_refused(workshop, command, tmp_path):
    given = [18 if word == 16 else word for word in words(workshop, tmp_path / "out")]
    code, _, err = command(*given)
    assert code == 2
    assert "multiples of 4, got (18, 18)" in err
    assert list(tmp_path.iterdir()) == []


def test_a_model_trained_again_is_not_mixed_into_a_run(workshop, command, run, tmp_path):
    other, copied = tmp_path / "gate", tmp_path / "run"
    shutil.copytree(run, copied)
    data = workshop / "data" / "dataset"
    CorrelationGate.fit(MicrostructureDataset.open(data), resolution=0.01).save(other)
    (copied / "settings.yaml").write_text(
        (run / "settings.yaml").read_text().replace(str(workshop / "gate"), str(other))
    )
    code, _, err = command(
        *[other if w == workshop / "gate" else w for w in words(workshop, copied)]
    )
    assert code == 2
    assert "gate_sha256" in err


def test_the_demo_from_scratch_uses_nothing_shipped(mesoforge, tmp_path):
    small = [
        *("--shape", 16, 16, "--scratch-points", 12, "--scratch-generator-steps", 2),
        *("--scratch-surrogate-steps", 2, "--evaluations", 4, "--process-checks", 2),
        *("--window-points", 2, "--window-samples", 1),
    ]
    code, _, err = mesoforge("demo", "--from-scratch", *small, "--out", "demo")
    assert code == 0, err
    made = {path.name for path in (tmp_path / "demo" / "scratch").iterdir()}
    assert {"dataset", "generator", "gate", "surrogate"} <= made
    assert (tmp_path / "demo" / "results.json").is_file()


def test_generate_writes_structures_that_read_back(workshop, mesoforge, tmp_path):
    settings = ["--set", "composition=0.5", "temperature_k=700", "--shape", 16, 16, "-n", 2]
    code, _, err = mesoforge("generate", workshop / "generator", *settings, "--out", "out")
    assert code == 0, err
    table = json.loads((tmp_path / "out" / "samples.json").read_text())
    for k, entry in enumerate(table["samples"]):
        structure = read_microstructure(tmp_path / "out" / entry["file"])
        picture = read_microstructure(tmp_path / "out" / f"structure-{k:05d}.png")
        assert (structure.phases == picture.phases).all()
        assert structure.process["composition"] == 0.5


def test_generate_refuses_a_process_outside_its_bounds(workshop, mesoforge, tmp_path):
    code, _, err = mesoforge("generate", workshop / "generator", "--set", "composition=0.9")
    assert code == 2
    assert "composition" in err
    assert list(tmp_path.iterdir()) == []


def test_predict_by_the_surrogate_brackets_the_solver(workshop, mesoforge, tmp_path):
    made = ["--shape", 16, 16, "-n", 1, "--out", "made"]
    assert mesoforge("generate", workshop / "generator", *made)[0] == 0
    file = tmp_path / "made" / "structure-00000.vtkhdf"
    found = {}
    for name, how in {
        "guess": ["--field-surrogate", workshop / "surrogate"],
        "solved": ["--solver"],
    }.items():
        code, _, err = mesoforge("predict", file, *how, "--out", name)
        assert code == 0, err
        text = (tmp_path / name / "predictions.json").read_text()
        found[name] = json.loads(text)["predictions"][0]["c11_gpa"]
    guess, solved = found["guess"], found["solved"]
    assert guess["lower"] <= solved["value"] <= guess["upper"]


def test_the_fidelity_report_compares_with_real_structures(workshop, mesoforge, tmp_path):
    words = ["report", workshop / "generator", "--against", workshop / "data", "-n", 8]
    code, _, err = mesoforge(*words, "--out", "fidelity")
    assert code == 0, err
    facts = json.loads((tmp_path / "fidelity" / "fidelity.json").read_text())
    assert facts["n_generated"] == 8
    assert {metric["name"] for metric in facts["metrics"]} >= {"s2", "lineal path"}
    assert "floor" in (tmp_path / "fidelity" / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--where", "composition=0.5"], "composition = 0.5"),
        (["--where", "composition=nan"], "nan"),
        (["-n", 1], "setting n"),
        (["--seed", -1], "seed"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused(workshop, mesoforge, tmp_path, more, said):
    words = ["report", workshop / "generator", "--against", workshop / "data"]
    code, _, err = mesoforge(*words, *more)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []

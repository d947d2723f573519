"""Property surrogates by the command: trained, and asked by the ladder of `predict`."""

import json
import shutil

import numpy as np
import pytest
import torch

from microstructures import Microstructure, MicrostructureDataset
from microstructures.vtkhdf import write_vtkhdf
from physics import IsotropicElastic, effective_stiffness
from studies.run_folder import find_folder

TINY = ["widths=[8,8]", "features=8", "members=2", "random_fields=60", "training.steps=40"]


@pytest.fixture(scope="module")
def model(command, workshop, tmp_path_factory):
    """A property surrogate of 16 x 16 cells, trained by the command on two data sets."""
    out = tmp_path_factory.mktemp("property") / "run"
    data = ["--data", workshop / "data", "--also", workshop / "data"]
    code, _, err = command("train", "property", *data, "--out", out, "--set", *TINY)
    assert code == 0, err
    return out


@pytest.fixture
def structure(tmp_path):
    """A file with a checkered cell of 16 x 16 voxels, and its labels."""
    phases = np.zeros((16, 16), np.uint8)
    phases[:8, :8] = phases[8:, 8:] = 1
    write_vtkhdf(Microstructure(phases), tmp_path / "checkers.vtkhdf")
    return tmp_path / "checkers.vtkhdf", torch.from_numpy(phases)[None]


def predicted(answer, out):
    code, _, err = answer
    assert code == 0, err
    (found,) = json.loads((out / "predictions.json").read_text())["predictions"]
    return found


def test_each_file_is_answered_by_the_first_rung_that_is_sure(
    mesoforge, tmp_path, structure, model
):
    file, phases = structure
    models = ["--property-surrogate", model]
    materials = [
        IsotropicElastic(youngs_modulus_gpa=20.0, poisson_ratio=0.33),
        IsotropicElastic(youngs_modulus_gpa=200.0, poisson_ratio=0.25),
    ]
    exact = effective_stiffness(phases, materials, tolerance=1e-8).value[0]
    said = {}
    for name, words in {
        "loose": ["--bracket-tolerance", "0.95", "--guaranteed"],
        "tight": ["--bracket-tolerance", "1e-5"],
    }.items():
        answer = mesoforge("predict", file, *models, *words, "--out", tmp_path / name)
        said[name] = predicted(answer, tmp_path / name)
    for found in said.values():
        assert found["by"] == "solver"
        assert found["level"] == "discrete"
        assert found["cpu_ms"] > 0
        assert "fields" not in found
        c11 = found["c11_gpa"]
        assert c11["lower"] <= float(exact[0, 0]) * (1 + 1e-9)
        assert c11["upper"] >= float(exact[0, 0]) * (1 - 1e-9)
    narrow = said["tight"]["c11_gpa"]
    assert 1 - narrow["lower"] / narrow["upper"] < 1e-5


def test_the_property_net_answers_for_cells_like_its_own(mesoforge, tmp_path, model, workshop):
    cells = MicrostructureDataset.open(find_folder(workshop / "data", "dataset"))
    write_vtkhdf(cells[0], tmp_path / "own.vtkhdf")
    words = ["--bracket-tolerance", "0.95", "--property-surrogate", model]
    answer = mesoforge("predict", tmp_path / "own.vtkhdf", *words, "--out", tmp_path / "out")
    found = predicted(answer, tmp_path / "out")
    assert (found["by"], found["level"]) == ("property net", "statistical")
    assert found["distance"] <= 1
    # Whatever was learned, the answer lies between the series and the parallel connection.
    soft, stiff = 20 * 0.67 / (1.33 * 0.34), 200 * 0.75 / (1.25 * 0.5)
    low, high = found["volume_fractions"]
    assert 1 / (low / soft + high / stiff) < found["c11_gpa"]["value"] < low * soft + high * stiff


def test_a_stranger_is_refused_on_request(mesoforge, tmp_path, structure, workshop):
    file, _ = structure
    words = [
        "predict",
        file,
        "--field-surrogate",
        workshop / "surrogate",
        "--out",
        tmp_path / "out",
    ]
    code, _, err = mesoforge(*words, "--largest-distance", "1e-6")
    assert code == 2
    assert "checkers.vtkhdf" in err
    assert "--solver" in err
    code, out, err = mesoforge(*words)
    assert code == 0, err
    assert "distance" in out


def test_altered_weights_are_refused(mesoforge, tmp_path, structure, model):
    broken = tmp_path / "broken"
    shutil.copytree(model / "model", broken)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    words = ["predict", structure[0], "--bracket-tolerance", "0.1", "--property-surrogate", broken]
    code, _, err = mesoforge(*words, "--out", tmp_path / "out")
    assert code == 2
    assert "model.safetensors" in err
    assert not (tmp_path / "out").exists()


def test_data_sets_that_differ_are_refused(mesoforge, tmp_path, workshop):
    simulate = ["simulate", "--points", 4, "--cells-per-point", 1, "--shape", 32, 32]
    assert mesoforge(*simulate, "--out", tmp_path / "other")[0] == 0
    words = ["--data", workshop / "data", "--also", tmp_path / "other", "--out", tmp_path / "run"]
    code, _, err = mesoforge("train", "property", *words)
    assert code == 2
    assert "(32, 32)" in err
    code, _, err = mesoforge("train", "gate", *words)
    assert code == 2
    assert "train property" in err

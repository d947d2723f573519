"""Measured properties and thermal expansion by the command: train from a table, predict a file."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from microstructures import Microstructure, ProcessSpace, read_microstructure
from microstructures.dataset import DatasetBuilder
from physics import IsotropicElastic, effective_conductivity, effective_stiffness

TABLE = "specimen,hardness_hv,time_h\n"


def picture(level, seed):
    field = np.random.default_rng(seed).random((16, 16))
    return (field < level).astype(np.uint8)


@pytest.fixture
def workplace(tmp_path):
    """Two pictures of each of 12 specimens; hardness is 100 + 50 x fraction x time."""
    cells, names, rows = [], [], []
    for k in range(12):
        level, hours = 0.2 + 0.05 * k, 1 + (5 * k) % 7
        cells += [
            Microstructure(phases=picture(level, 2 * k + j), phase_names=("soft", "hard"))
            for j in range(2)
        ]
        names += [f"s{k}"] * 2
        rows.append(f"s{k},{100 + 50 * level * hours},{hours}\n")
    builder = DatasetBuilder(tmp_path / "data", ProcessSpace([]))
    builder.missing(1)
    builder.add(0, cells, names)
    builder.finish()
    (tmp_path / "table.csv").write_text(TABLE + "".join(rows))
    Image.fromarray(picture(0.5, 99)).save(tmp_path / "new.png")
    return tmp_path


WORDS = ["--set", "property_column=hardness_hv", "input_columns=time_h", "regression=ridge"]


def train(mesoforge, place, *more):
    given = ["--data", place / "data", "--table", place / "table.csv", "--out", place / "run"]
    return mesoforge("train", "measured", *given, *WORDS, *more)


def test_a_hardness_is_learnt_from_a_table_and_predicted_with_its_interval(mesoforge, workplace):
    code, out, err = train(mesoforge, workplace)
    assert code == 0, err
    ask = ["predict", "new.png", "--measured-property", "run", "--out", "prediction"]
    code, out, err = mesoforge(*ask, "--input", "time_h=4")
    assert code == 0, err
    assert "This specimen's hardness_hv is" in out
    (found,) = json.loads((workplace / "prediction/predictions.json").read_text())["predictions"]
    assert abs(found["value"] - 200) < 12
    assert found["lower"] < found["value"] < found["upper"] < 300
    assert "12 specimens with 24 pictures" in (workplace / "run/model/card.md").read_text()
    code, _, err = mesoforge(*ask[:4], "--out", "other")
    assert code == 2
    assert "time_h" in err
    far = ["--input", "time_h=90", "--largest-distance", "2", "--out", "other"]
    code, _, err = mesoforge(*ask[:4], *far)
    assert code == 2
    assert "measure it" in err
    assert not (workplace / "other").exists()


def test_a_table_that_does_not_fit_is_refused_and_nothing_is_written(mesoforge, workplace):
    code, _, err = mesoforge(
        "train", "measured", "--data", workplace / "data", "--out", workplace / "run"
    )
    assert code == 2
    assert "--table" in err
    table = workplace / "table.csv"
    table.write_text(table.read_text().replace("s3,", "s3x,"))
    code, _, err = train(mesoforge, workplace)
    assert code == 2
    assert "'s3'" in err
    assert not (workplace / "run").exists()


def test_predict_gives_the_thermal_expansion_of_two_phases(mesoforge, workplace):
    words = ["predict", "new.png", "--solver", "--tolerance", "1e-6", "--expansion-per-k"]
    code, out, err = mesoforge(*words, "2e-5", "5e-6", "--out", "run")
    assert code == 0, err
    assert "its expansion along 1 is" in out
    (entry,) = json.loads((workplace / "run/predictions.json").read_text())["predictions"]
    found = entry["expansion_per_k_mandel"]
    materials = [
        IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=nu)
        for e, nu in ((20.0, 0.33), (200.0, 0.25))
    ]
    phases = torch.from_numpy(read_microstructure(workplace / "new.png").phases)[None]
    own = effective_stiffness(phases, materials, tolerance=1e-7, eigenstrain=[2e-5, 5e-6])
    ends = zip(found["lower"], own.eigenstrain[0].tolist(), found["upper"], strict=True)
    for low, value, high in ends:
        assert low - 1e-10 <= value <= high + 1e-10
    code, _, err = mesoforge(*words, "2e-5", "--out", "other")
    assert code == 2
    assert "eigenstrain" in err
    assert not (workplace / "other").exists()


def test_a_surrogate_of_the_conductivity_is_trained_and_asked_before_the_solver(
    mesoforge, workplace
):
    tiny = ["quantity=conductivity", "widths=[8]", "features=8", "members=1", "held_out=0.5"]
    tiny += ["random_fields=0", "as_periods=1", "training.steps=3"]
    data = ["--data", workplace / "data", "--out", workplace / "k"]
    code, _, err = mesoforge("train", "property", *data, "--set", *tiny)
    assert code == 0, err
    ask = ["predict", "new.png", "--conductivity-w-mk", "1", "10", "--largest-distance", "50"]
    phases = torch.from_numpy(read_microstructure(workplace / "new.png").phases)[None]
    truth = float(effective_conductivity(phases, [1.0, 10.0], tolerance=1e-7).value[0, 0, 0])
    found = {}
    for width in ("0.9", "1e-5"):
        words = ["--property-surrogate", "k", "--bracket-tolerance", width, "--out", f"at-{width}"]
        code, out, err = mesoforge(*ask, *words)
        assert code == 0, err
        (entry,) = json.loads((workplace / f"at-{width}/predictions.json").read_text())[
            "predictions"
        ]
        found[width] = entry
    assert "k11 is" in out
    assert found["1e-5"]["by"] == "solver"
    assert found["1e-5"]["k11_w_mk"]["value"] == pytest.approx(truth, rel=1e-5)
    assert found["0.9"]["k11_w_mk"]["value"] == pytest.approx(truth, rel=0.3)
    assert found["0.9"]["by"] == "property net"

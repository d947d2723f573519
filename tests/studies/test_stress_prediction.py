"""`predict --image-surrogate`: stress of a cracked bar, its error map, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from microstructures import Microstructure, read_microstructure
from microstructures.vtkhdf import write_vtkhdf

MATERIALS = ["--youngs-modulus-gpa", 20, 200, 0, "--poisson-ratio", 0.33, 0.25, 0.3]
NET = ["--image-surrogate", "stress-2d-pix2pix"]


@pytest.fixture
def bar(tmp_path):
    """A file with a bar along direction 1, cracked across: pore (2) beside it and in it."""
    phases = np.zeros((32, 32), np.uint8)
    phases[8:20, 4:12] = 1
    phases[24, :8] = phases[:, 24:] = 2
    write_vtkhdf(Microstructure(phases), tmp_path / "bar.vtkhdf")
    return tmp_path / "bar.vtkhdf"


def test_a_cracked_bar_carries_stress_where_it_is_solid_and_along_itself(mesoforge, tmp_path, bar):
    code, said, err = mesoforge(
        "predict", bar, *MATERIALS, *NET, "--solver", "--out", tmp_path / "out"
    )
    assert code == 0, err
    assert "without a bracket" in said
    (entry,) = json.loads((tmp_path / "out/predictions.json").read_text())["predictions"]
    found = read_microstructure(tmp_path / "out" / entry["fields"])
    q, error = (found.channels[f"{name}_load_11"] for name in ("von_mises_gpa", "error"))
    pore = found.phases == 2
    assert q[pore].max() < 1e-4 * q.max()
    assert entry["relative_error"]["11"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert entry["relative_error"]["11"] < 0.6
    # Its sides are free: a strain across the bar gives no stress.
    peaks = entry["von_mises_99th_percentile_gpa"]
    assert peaks["22"] < 1e-3 * peaks["11"]
    with Image.open(tmp_path / "out" / entry["picture"]) as picture:
        assert picture.size[0] > 900


def test_what_does_not_fit_is_refused_before_anything_is_written(mesoforge, tmp_path, bar):
    odd = tmp_path / "odd.vtkhdf"
    write_vtkhdf(Microstructure(np.arange(400, dtype=np.uint8).reshape(20, 20) % 2), odd)
    for word, words in {
        "multiples of 16": [odd, *MATERIALS],
        "found label 2": [bar, "--youngs-modulus-gpa", 20, 200, "--poisson-ratio", 0.3, 0.3],
        "within distance 0.01": [bar, *MATERIALS, "--largest-distance", 0.01],
    }.items():
        out = tmp_path / word.replace(" ", "-")
        code, _, err = mesoforge("predict", *words, *NET, "--out", out)
        assert code == 2
        assert word in err
        assert not (out / "predictions.json").exists()

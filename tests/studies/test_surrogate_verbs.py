"""The verbs `explain` and `pick`: pictures and picks from files, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image

from microstructures import Microstructure, MicrostructureDataset
from microstructures.vtkhdf import write_vtkhdf
from studies.run_folder import find_folder


@pytest.fixture
def structure(tmp_path):
    """A stiff band along direction 1 with a gap, in 16 x 16 voxels."""
    phases = np.zeros((16, 16), np.uint8)
    phases[:, 5:9] = 1
    phases[7:9] = 0
    write_vtkhdf(Microstructure(phases), tmp_path / "band.vtkhdf")
    return tmp_path / "band.vtkhdf"


def marked(path, voxels):
    """Write a mask as a picture: columns are direction 1."""
    Image.fromarray((255 * voxels.T).astype(np.uint8)).save(path)
    return path


def test_the_gap_of_a_band_is_where_stiffness_is_decided(mesoforge, tmp_path, structure):
    gap = np.zeros((16, 16))
    gap[7:9, 5:9] = 1
    region = marked(tmp_path / "gap.png", gap)
    words = ["explain", structure, "--region", region, "--youngs-modulus-gpa", 1, 10]
    code, said, err = mesoforge(*words, "--out", tmp_path / "out")
    assert code == 0, err
    assert "in the marked region" in said
    facts = json.loads((tmp_path / "out/explanation.json").read_text())
    exact = facts["maps"]["exact sensitivity"]
    assert facts["region"] == {"voxels": 8, "share": 8 / 256}
    assert exact["share_in_region"] > 3 * facts["region"]["share"]
    assert exact["correlation"] == pytest.approx(1)
    assert exact["deletion_score"] == exact["insertion_score"] == 1
    assert facts["maps"]["net's gradient"]["correlation"] > facts["maps"]["Grad-CAM"]["correlation"]
    with Image.open(tmp_path / "out/explanation.png") as picture:
        assert picture.size[0] > 600


def test_what_cannot_be_explained_is_refused(mesoforge, tmp_path, structure):
    small = marked(tmp_path / "small.png", np.ones((8, 8)))
    none = marked(tmp_path / "none.png", np.zeros((16, 16)))
    three = tmp_path / "three.vtkhdf"
    write_vtkhdf(Microstructure(np.arange(256, dtype=np.uint8).reshape(16, 16) % 3), three)
    for word, words in {
        "shape (16, 16), got (8, 8)": [structure, "--region", small],
        "labels above 0": [structure, "--region", none],
        "labels 0 and 1": [three],
        "3 x 3 matrix": [structure, "--entry", 1, 4],
        "encoder level": [structure, "--level", 9],
    }.items():
        code, _, err = mesoforge("explain", *words, "--out", tmp_path / "refused")
        assert code == 2
        assert word in " ".join(err.split())
        assert not (tmp_path / "refused").exists()


def test_picks_go_on_from_picks(mesoforge, tmp_path, workshop):
    pool = MicrostructureDataset.open(find_folder(workshop / "data", "dataset"))
    words = ["pick", "--data", workshop / "data", "--count", 3]
    rows: list[int] = []
    for name, more in {
        "a": [],
        "b": ["--field-surrogate", workshop / "surrogate", "--labelled", tmp_path / "a"],
        "c": ["--labelled", tmp_path / "a", tmp_path / "b"],
    }.items():
        code, said, err = mesoforge(*words, *more, "--out", tmp_path / name)
        assert code == 0, err
        assert "Picked 3 of" in said
        picks = json.loads((tmp_path / name / "picks.json").read_text())
        cells = MicrostructureDataset.open(tmp_path / name / "dataset")
        assert (cells.phases == pool.phases[picks["rows"]]).all()
        assert np.mean(picks["doubt"]) > picks["mean_doubt_of_the_pool"]
        rows += picks["rows"]
    assert len(set(rows)) == 9
    left = len(pool) - 3
    words[-1] = left + 1
    code, _, err = mesoforge(*words, "--labelled", tmp_path / "a", "--out", tmp_path / "d")
    assert code == 2
    assert f"1 to {left} cells" in err
    code, _, err = mesoforge(*words, "--labelled", tmp_path, "--out", tmp_path / "d")
    assert code == 2
    assert "earlier pick" in err

"""Micrographs by the command: import, train, generate pairs, and the benchmark."""

import imageio.v3 as iio
import numpy as np
import pytest

from microstructures import Microstructure, read_microstructure
from studies.micrograph_sources import naive_micrographs
from studies.segmentation import intersections_over_unions, train_segmenter

RENDERER = "widths: [8, 8]\nfeatures: 16\nsteps: 4\ncrop: 16\n"
GENERATOR = "widths: [8, 8]\nfeatures: 16\nlatent_dim: 2\n"
TRAINING = "training: {steps: 2, batch_size: 2, warmup_steps: 1}\n"


@pytest.fixture(scope="module")
def pictures(command, tmp_path_factory):
    """Four imported pictures of 32 x 32 with masks, and the settings of both nets."""
    folder = tmp_path_factory.mktemp("micrographs")
    rng = np.random.default_rng(0)
    rows = ["file,site,etch [-]"]
    for k in range(4):
        mask = rng.integers(0, 2, (8, 8)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        grey = (90 + 60 * mask + rng.integers(0, 20, mask.shape)).astype(np.uint8)
        for part, picture in (("label", mask), ("image", grey)):
            (folder / part).mkdir(exist_ok=True)
            iio.imwrite(folder / part / f"p{k}.png", picture)
        rows.append(f"p{k}.png,site {k // 2},{('weak', 'strong')[k % 2]}")
    (folder / "maps.csv").write_text("\n".join(rows) + "\n")
    (folder / "import.yaml").write_text(
        "phase_names: [a, b]\nmicrographs: ../image\nspecimen_column: site\n"
    )
    (folder / "renderer.yaml").write_text(RENDERER + TRAINING)
    (folder / "generator.yaml").write_text(GENERATOR + TRAINING)
    words = ["import", folder / "label", "--table", folder / "maps.csv"]
    code, _, err = command(*words, "--settings", folder / "import.yaml", "--out", folder / "data")
    assert code == 0, err
    return folder


def test_pairs_come_out_of_generate(command, pictures, tmp_path):
    for what in ("micrograph", "generator"):
        settings = pictures / ("renderer.yaml" if what == "micrograph" else "generator.yaml")
        words = ["train", what, "--data", pictures / "data", "--settings", settings]
        code, _, err = command(*words, "--out", tmp_path / what)
        assert code == 0, err
    out = tmp_path / "made"
    words = ["generate", tmp_path / "generator", "-n", 2, "--shape", 16, 16, "--out", out]
    code, _, err = command(*words, "--micrograph", tmp_path / "micrograph", "--set", "etch=weak")
    assert code == 0, err
    structure = read_microstructure(out / "structure-00001.vtkhdf")
    label = iio.imread(out / "label" / "structure-00001.png").T
    image = iio.imread(out / "image" / "structure-00001.png").T
    np.testing.assert_array_equal(label, structure.phases)
    np.testing.assert_array_equal(image, structure.channels["grey"])
    assert image.dtype == np.uint8
    code, _, err = command(*words, "--micrograph", tmp_path / "generator")
    assert code == 2
    assert "MicrographRenderer" in err


def test_the_benchmark_measures_every_source_and_resumes(command, pictures, tmp_path):
    words = ["bench", "micrographs", "--data", pictures / "data", "--out", tmp_path / "bench"]
    words += ["--renderer", pictures / "renderer.yaml", "--generator", pictures / "generator.yaml"]
    words += ["--pictures", 1, "--crop", 16, "--segmenter-steps", 2, "--segmenters", 1]
    code, _, err = command(*words, "--held-out", 0.5, "--page", tmp_path / "page")
    assert code == 0, err
    page = (tmp_path / "page" / "README.md").read_text()
    for said in (
        "real training pictures",
        "generated masks, rendered",
        "flat phases",
        "rendered anew",
    ):
        assert page.count(said) >= 2, said
    assert (tmp_path / "page" / "pairs.png").is_file()
    kept = tmp_path / "bench" / "stages" / "uses" / "facts.json"
    before = kept.stat().st_mtime_ns
    code, _, err = command(*words, "--held-out", 0.5)
    assert code == 0, err
    assert kept.stat().st_mtime_ns == before
    code, _, err = command(*words, "--held-out", 0.4)
    assert code == 2
    assert "held_out" in err


def test_a_segmenter_learns_phases_that_naive_pictures_show():
    rng = np.random.default_rng(0)
    masks = [
        Microstructure(rng.integers(0, 2, (8, 8)).repeat(4, 0).repeat(4, 1), phase_names=("a", "b"))
        for _ in range(4)
    ]
    real = [
        m.with_channels(grey=(80 + 70 * m.phases + rng.integers(0, 9, m.shape)).astype(np.uint8))
        for m in masks
    ]
    naive = naive_micrographs(masks, real, seed=0)
    net = train_segmenter(naive, n_phases=2, steps=40, seed=0)
    assert intersections_over_unions(net, real).min() > 0.8

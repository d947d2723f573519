"""Grey micrographs beside label maps: import, resampling, image and mask pairs."""

import imageio.v3 as iio
import numpy as np
import pytest

from microstructures import DataError, ImportSettings, Microstructure, import_maps
from microstructures.cropping import resample_grey, resample_labels
from microstructures.micrographs import read_micrograph, write_segmentation_pair

RNG = np.random.default_rng(0)


@pytest.fixture
def pairs(tmp_path):
    """Two masks of 24 columns and 16 rows in `label`, their micrographs in `image`, a table."""
    for part, high in (("label", 2), ("image", 256)):
        (tmp_path / part).mkdir()
        for k in range(2):
            picture = RNG.integers(0, high, (16, 24)).astype(np.uint8)
            iio.imwrite(tmp_path / part / f"m{k}.png", picture)
    (tmp_path / "maps.csv").write_text("file,etch [s]\nm0.png,5\nm1.png,9\n")
    return tmp_path


def imported(pairs, **changes):
    settings = ImportSettings(
        **{"phase_names": ("a", "b"), "micrographs": "../image", "crop": 8, **changes}
    )
    return import_maps(pairs / "label", pairs / "maps.csv", settings, pairs / "out")[0]


def test_crops_of_mask_and_micrograph_are_of_the_same_place(pairs):
    data = imported(pairs)
    assert len(data) == 12
    image = iio.imread(pairs / "image" / "m1.png").T
    labels = iio.imread(pairs / "label" / "m1.png").T
    last = data[11]
    assert last.channels["grey"].dtype == np.uint8
    np.testing.assert_array_equal(last.channels["grey"], image[16:, 8:])
    np.testing.assert_array_equal(last.phases, labels[16:, 8:])


def test_coarser_voxels_hold_the_mean_grey(pairs):
    data = imported(pairs, resample_to_um=2.0)
    image = iio.imread(pairs / "image" / "m0.png").T.astype(float)
    means = image.reshape(12, 2, 8, 2).mean((1, 3))
    assert np.abs(data[0].channels["grey"] - means[:8]).max() <= 0.5


@pytest.mark.parametrize("factor", [2.0, 1.5, 1.0, 0.5])
def test_grey_and_labels_are_resampled_onto_one_grid(factor):
    labels = RNG.integers(0, 2, (24, 30)).astype(np.uint8)
    coarse, _ = resample_labels(labels, np.zeros((24, 30), bool), factor=factor, n_phases=2)
    grey = resample_grey(200 * labels, factor=factor)
    assert grey.shape == coarse.shape
    # A voxel's mean is on the side of the phase that most of it is made of.
    assert (np.sign(grey - 100) * np.where(coarse == 1, 1, -1) >= 0).all()


def test_a_missing_or_misfitting_micrograph_is_named_and_nothing_written(pairs):
    (pairs / "image" / "m1.png").unlink()
    with pytest.raises(DataError, match=r"micrograph of the map m1\.png"):
        imported(pairs)
    iio.imwrite(pairs / "image" / "m1.png", np.zeros((16, 20), np.uint8))
    with pytest.raises(DataError, match=r"m1\.png.*24, 16"):
        imported(pairs)
    iio.imwrite(pairs / "image" / "m1.png", np.full((16, 24), 3000, np.uint16))
    with pytest.raises(DataError, match="8-bit grey micrograph"):
        imported(pairs)
    assert not (pairs / "out").exists()


@pytest.mark.parametrize(("shape", "suffix"), [((6, 4), ".png"), ((6, 4, 3), ".tif")])
def test_a_pair_reads_back_without_loss(tmp_path, shape, suffix):
    grey = RNG.integers(0, 256, shape).astype(np.uint8)
    structure = Microstructure(RNG.integers(0, 3, shape)).with_channels(grey=grey)
    image, label = write_segmentation_pair(structure, tmp_path, "s0")
    assert (image, label) == (tmp_path / f"image/s0{suffix}", tmp_path / f"label/s0{suffix}")
    np.testing.assert_array_equal(read_micrograph(image, shape=shape), grey)
    np.testing.assert_array_equal(read_micrograph(label, shape=shape), structure.phases)
    with pytest.raises(DataError, match="render it first"):
        write_segmentation_pair(Microstructure(structure.phases), tmp_path, "s1")

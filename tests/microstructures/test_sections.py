"""Sections of volumes as data: which voxels they show, where they lie, and what is refused."""

import numpy as np
import pytest

from microstructures import DataError, MicrostructureDataset
from microstructures.sections import SectionSettings, import_sections, section_crops
from microstructures.structure import Microstructure


def volume_file(folder, shape=(12, 16, 20)):
    labels = np.random.default_rng(0).integers(0, 2, shape, np.uint8)
    np.savez(folder / "volume.npz", phase=labels)
    return folder / "volume.npz", labels


def test_crops_are_the_sections_of_the_part_that_is_used(tmp_path):
    file, labels = volume_file(tmp_path)
    settings = SectionSettings(key="phase", low=(0, 0, 8), spacing=5, crop=8, stride=8)
    data = import_sections(file, settings, tmp_path / "data")
    assert len(data.space) == 0
    assert data.periodic == (False, False)
    assert data.process_units.shape == (len(data), 0)
    # Sections at 0, 5, 10 of 12; 0, 5, 10, 15 of 16; 0, 5, 10 of 12 voxels, with 1 x 2 or more
    # crops each: (2 x 2) on normal 0, (2 x 2) on normal 1, (2 x 2) on normal 2.
    assert len(data) == 3 * 4 + 4 * 4 + 3 * 4
    assert data.specimens[0] == "normal 0 at 0"
    assert data.specimens[-1] == "normal 2 at 10"
    np.testing.assert_array_equal(data.phases[0], labels[0, :8, 8:16])
    np.testing.assert_array_equal(data.phases[-1], labels[4:12, 8:16, 18])
    again = MicrostructureDataset.open(tmp_path / "data")
    assert again.digest == data.digest


def test_a_section_keeps_the_order_of_its_axes():
    labels = np.arange(4 * 5 * 6).reshape(4, 5, 6) % 251
    volume = Microstructure(labels.astype(np.uint8), periodic=(False,))
    settings = SectionSettings(crop=4, spacing=100)
    (_, crop), *_ = section_crops(volume, 1, settings)
    np.testing.assert_array_equal(crop.phases, labels[:4, 0, :4])


def test_one_picture_is_one_section(tmp_path):
    np.save(tmp_path / "map.npy", np.eye(16, dtype=np.uint8))
    data = import_sections(tmp_path / "map.npy", SectionSettings(crop=8), tmp_path / "data")
    assert data.phases.shape == (4, 8, 8)
    assert set(data.specimens) == {"section"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 17}, "leave out this normal"),
        ({"high": (12, 16, 21)}, "low and high of 3 axes"),
        ({"phase_names": ("one",)}, "phase_names"),
        ({"normals": (0, 3)}, "normals among"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    file, _ = volume_file(tmp_path)
    with pytest.raises((DataError, ValueError), match=message):
        import_sections(file, SectionSettings(key="phase", **changes), tmp_path / "data")
    assert not list(tmp_path.glob("data*"))

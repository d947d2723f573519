"""Measured volumes: sections that may be seen, and blocks that hold no voxel of them."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from microstructures import DataError
from studies.volume_data import berea_layout

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(("length", "side"), [(400, 128), (52, 16), (61, 16)])
def test_no_voxel_of_a_section_lies_in_a_block(length, side):
    spans, places = berea_layout(length, side)
    seen = np.zeros((length,) * 3, bool)
    for place in places:
        seen[place] = seen[:, place] = seen[:, :, place] = True
    for x in spans:
        for y in spans:
            for z in spans:
                assert not seen[slice(*x), slice(*y), slice(*z)].any()
    assert all(end - start == side for start, end in spans)
    assert [start for start, _ in spans] == sorted({start for start, _ in spans})
    assert places[-1] < length


def test_the_importer_takes_the_sections_between_the_blocks():
    settings = yaml.safe_load((CONFIGS / "import-berea-sections.yaml").read_text())
    _, places = berea_layout(400, 128)
    for low, high in zip(settings["low"], settings["high"], strict=True):
        assert list(range(low, high, settings["spacing"])) == places


def test_a_volume_without_room_for_sections_is_refused():
    with pytest.raises(DataError, match="at least 388"):
        berea_layout(387, 128)

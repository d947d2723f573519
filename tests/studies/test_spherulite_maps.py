"""The spherulite fields as an import: maps, table, specimens."""

from pathlib import Path

import numpy as np
import pytest

from microstructures import DataError, import_maps, load_settings
from microstructures.importing import ImportSettings
from studies.spherulite_maps import TABLE, write_spherulite_maps

SETTINGS = Path(__file__).resolve().parents[2] / "configs" / "spherulite-import.yaml"


def test_fields_come_back_with_temperature_and_nuclei(tmp_path, monkeypatch):
    monkeypatch.setenv("MESOFORGE_DATA", str(tmp_path))
    with pytest.raises(DataError, match="MESOFORGE_DATA"):
        write_spherulite_maps(tmp_path / "maps")
    fields = np.random.default_rng(0).integers(0, 2, (4, 8, 6)).astype(np.uint8)
    (tmp_path / "spherulite_phasefield").mkdir()
    np.savez(
        tmp_path / "spherulite_phasefield" / "spherulites.npz",
        phase=fields,
        temperature_C=np.array([160.0, 200.0, 160.0, 200.0]),
        seed=np.array([1, 1, 2, 2]),
    )
    table = write_spherulite_maps(tmp_path / "maps")
    assert table.name == TABLE
    assert len(table.read_text().splitlines()) == 5
    settings = load_settings(SETTINGS, ImportSettings)
    data, _ = import_maps(tmp_path / "maps", table, settings, tmp_path / "data")
    assert data.periodic == (True, True)
    assert data.specimens == ["nuclei-1", "nuclei-1", "nuclei-2", "nuclei-2"]
    assert [m["temperature_c"] for m in (data[k].process for k in range(4))] == [160, 200] * 2
    np.testing.assert_array_equal(data.phases.numpy(), fields)

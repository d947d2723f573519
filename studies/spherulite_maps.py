"""The spherulite fields as label maps with a table, as `mesoforge import` takes them."""

import csv
import io
import sys
from pathlib import Path

import numpy as np

from microstructures import DataError, Microstructure
from microstructures.pictures import write_picture
from microstructures.publishing import publish_text
from studies.measured_data import data_folder

TABLE = "processes.csv"


def write_spherulite_maps(folder: Path) -> Path:
    """Write the 18 fields as PNG label maps with `processes.csv`, and return that table.

    The same specimen at three temperatures has the same nuclei (Ikeda et al., 2025), so fields of
    one specimen are never on both sides of a split.

    Raises:
        DataError: The data set is not where MESOFORGE_DATA points.
    """
    path = data_folder() / "spherulite_phasefield" / "spherulites.npz"
    if not path.is_file():
        raise DataError(f"expected the spherulite fields at {path}, found none; set MESOFORGE_DATA")
    with np.load(path, allow_pickle=False) as stored:
        fields, temperatures, seeds = stored["phase"], stored["temperature_C"], stored["seed"]
    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["file", "temperature_c [degC]", "nuclei"])
    for field, temperature, seed in zip(fields, temperatures, seeds, strict=True):
        name = f"{temperature:.0f}-{seed}.png"
        write_picture(Microstructure(field), folder / name)
        rows.writerow([name, f"{temperature:g}", f"nuclei-{seed}"])
    return publish_text(folder / TABLE, table.getvalue())


if __name__ == "__main__":
    print(f"wrote {write_spherulite_maps(Path(sys.argv[1]))}")

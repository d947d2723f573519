"""The verb `import`: a folder of label maps and a table become a data set."""

from pathlib import Path
from typing import Any

from microstructures.importing import ImportSettings, import_maps, maps_in
from microstructures.process_table import read_process_table
from microstructures.publishing import sha256
from studies.progress import progress_bar
from studies.run_folder import open_run
from studies.settings import Settings, resolve_settings
from studies.settings_text import settings_yaml

# Measured on two cores for maps of 645 x 475 voxels.
SECONDS_PER_MAP, MEMORY_MB = 0.3, 500


class ImportRun(Settings):
    """What identifies an import."""

    folder: str
    table_sha256: str
    settings: dict[str, Any]


def run_import(
    folder: Path, table: Path, *, settings_file: Path | None, out: Path, dry_run: bool
) -> list[Path]:
    """Import label maps into `out/dataset` (and `out/dataset-left-out`), and return both.

    Raises:
        DataError: One sentence on the first fault of the table, a map or a setting; nothing is
            written then.
    """
    settings = resolve_settings(ImportSettings, settings_file, None)
    # The table is checked here already, before a folder is made.
    _, rows = read_process_table(table, settings, files=maps_in(folder))
    resolved = settings.model_dump(mode="json")
    if dry_run:
        print(settings_yaml({**resolved, "expected": _expected_cost(folder, len(rows))}))
        return []
    identity = ImportRun(
        folder=str(folder.resolve()), table_sha256=sha256(table), settings=resolved
    )
    with (
        open_run(out, identity, verb="import") as run,
        progress_bar("import maps", len(rows)) as advance,
    ):
        target = run.path / "dataset"
        datasets = import_maps(
            folder, table, settings, target, progress=lambda done, _: advance(done)
        )
    left_out = [out / "dataset-left-out"] if datasets[1] is not None else []
    return [out / "dataset", *left_out]


def _expected_cost(folder: Path, maps: int) -> dict[str, Any]:
    size = sum((folder / name).stat().st_size for name in maps_in(folder)) / 1e6
    return {
        "memory_mb": MEMORY_MB,
        "disk_mb": round(10 * size, 1),
        "minutes": round(maps * SECONDS_PER_MAP / 60, 2),
    }

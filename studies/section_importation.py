"""The verb `import` without a table: sections of one measured volume become a data set."""

from pathlib import Path
from typing import Any

from microstructures import DataError
from microstructures.publishing import sha256
from microstructures.sections import SectionSettings, import_sections, read_part
from studies.run_folder import open_run
from studies.settings import Settings, resolve_settings
from studies.settings_text import settings_yaml


class SectionRun(Settings):
    """What identifies an import of sections."""

    file_sha256: str
    settings: dict[str, Any]


def run_section_import(
    file: Path, *, settings_file: Path | None, out: Path, dry_run: bool
) -> list[Path]:
    """Import the sections of a volume into `out/dataset` and return that.

    Raises:
        DataError: The file is no label map, or a setting does not fit it; nothing is written then.
    """
    if file.is_dir():
        raise DataError(
            f"expected --table with the processes of the maps in {file}, got none; without a table "
            "give one file, whose sections are imported"
        )
    settings = resolve_settings(SectionSettings, settings_file, None)
    resolved = settings.model_dump(mode="json")
    # Checked before a folder is made.
    part = read_part(file, settings)
    if dry_run:
        expected = {"memory_mb": round(500 + 10 * part.phases.size / 1e6), "minutes": 0.2}
        print(settings_yaml({**resolved, "expected": expected}))
        return []
    identity = SectionRun(file_sha256=sha256(file), settings=resolved)
    with open_run(out, identity, verb="import") as run:
        import_sections(file, settings, run.path / "dataset")
    return [out / "dataset"]

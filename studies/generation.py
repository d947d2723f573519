"""The verb `generate`: structures at one process point, as VTKHDF, pictures and a table."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from generators import ConditionalDiffusion, GeneratedMicrostructure
from generators.generator import ConditionalGenerator
from generators.micrograph import MicrographRenderer
from generators.training_density import units_beyond
from microstructures import DataError, Microstructure
from microstructures.micrographs import write_segmentation_pair
from microstructures.publishing import publish, publish_json
from microstructures.vtkhdf import write_vtkhdf
from studies.density_figure import density_figure
from studies.figures import middle_slice, publish_pictures
from studies.models import load_generator_of
from studies.progress import progress_bar
from studies.run_folder import find_folder, open_run
from studies.settings import GenerateSettings
from studies.structure_measurements import measure_samples, publish_measurements

# Measured on one core: seconds per 64 x 64 structure and megabytes at rest.
SECONDS_PER_CELL, MEMORY_MB = 0.05, 700


def plan_generation(model: str, settings: GenerateSettings) -> dict[str, Any]:
    """Check the model and the process; return expected memory (MB), disk (MB) and time (min)."""
    _checked_generator(model, settings)
    _renderer(settings)
    cells = settings.n * float(np.prod(settings.shape)) / 64**2
    return {
        "memory_mb": round(MEMORY_MB + min(cells, 64)),
        "disk_mb": round(0.03 + 0.02 * cells, 2),
        "minutes": round((10 + cells * SECONDS_PER_CELL) / 60, 2),
    }


def run_generation(model: str, settings: GenerateSettings, out: Path) -> list[Path]:
    """Generate structures and return the VTKHDF files.

    Structure k depends on (seed, k) alone. PNG pictures hold the labels as palette indices, so
    they can be looked at and read back. `measurements.csv` holds what each phase of each sample
    measures (`measure_samples`). `process-window.png` shows how densely the training data
    covers the process window, the point asked for marked. With a micrograph renderer the files
    have a channel "grey", and image and mask pairs lie in `image/` and `label/`.

    Raises:
        DataError: The process or shape does not fit the model, or the folder holds another run.
    """
    generator, renderer = _checked_generator(model, settings), _renderer(settings)
    structures = generator.sample(
        settings.process,
        n=settings.n,
        shape=settings.shape,
        seed=settings.seed,
        volume_fraction=settings.volume_fraction,
        extrapolate=settings.extrapolate,
    )
    if renderer is not None:
        structures = renderer.render(structures, seed=settings.seed)
    files = []
    with (
        open_run(out, settings, verb=f"generate {model}") as run,
        progress_bar("write", settings.n) as advance,
    ):
        for k, structure in enumerate(structures):
            name = run.path / f"structure-{k:05d}"
            files.append(write_vtkhdf(structure, name.with_suffix(".vtkhdf")))
            write_palette_png(structure, name.with_suffix(".png"))
            if renderer is not None:
                write_segmentation_pair(structure, run.path, name.name)
            advance(k + 1)
        publish_json(run.path / "samples.json", _table(structures, settings))
        publish_measurements(run.path / "measurements.csv", measure_samples(structures))
        density = density_figure(generator.space, generator.training_density, [settings.process])
        publish_pictures({"process-window": density}, run.path)
    return files


def _checked_generator(model: str, settings: GenerateSettings) -> ConditionalGenerator:
    """Load the generator and check the process, before anything is written."""
    generator = load_generator_of(model, settings.shape, settings.sections)
    if settings.guidance != 1:
        if not isinstance(generator, ConditionalDiffusion):
            raise DataError(
                f"expected a diffusion model for a guidance of {settings.guidance:g}, got "
                f"{model} as a {type(generator).__name__}; leave the guidance at 1"
            )
        generator = generator.guided(settings.guidance)
    if settings.extrapolate:
        units_beyond(generator.space, [settings.process])
    else:
        generator.space.to_unit(settings.process)
    return generator


def _renderer(settings: GenerateSettings) -> MicrographRenderer | None:
    """Load the micrograph renderer that is asked for."""
    if settings.micrograph is None:
        return None
    return MicrographRenderer.from_pretrained(find_folder(Path(settings.micrograph), "model"))


def write_palette_png(structure: Microstructure, path: Path) -> Path:
    """Write the labels (of the middle slice in 3-D) as a PNG whose palette shows them."""
    import matplotlib
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(middle_slice(structure.phases).T), mode="P")
    colours = matplotlib.colormaps["cividis"](np.linspace(0, 1, max(structure.n_phases, 2)))
    picture.putpalette((255 * colours[:, :3]).astype(np.uint8).tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    content = stream.getvalue()

    def write(partial: Path) -> None:
        partial.write_bytes(content)

    return publish(path, write)


def _table(
    structures: Sequence[GeneratedMicrostructure], settings: GenerateSettings
) -> dict[str, Any]:
    return {
        "process": settings.process,
        "seed": settings.seed,
        "phase_names": list(structures[0].phase_names),
        "voxel_size_um": structures[0].voxel_size_um,
        "samples": [
            {
                "file": f"structure-{k:05d}.vtkhdf",
                "volume_fractions": s.volume_fractions.tolist(),
                "extrapolated": s.extrapolated,
            }
            for k, s in enumerate(structures)
        ],
    }

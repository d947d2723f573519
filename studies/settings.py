"""Settings of every verb: one declaration that feeds YAML files, flags and saved runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from microstructures.errors import DataError

BOUND_WORDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def setting(default: Any, what: str, unit: str = "", **bounds: Any) -> Any:
    """Return a pydantic field whose description names its unit and bounds."""
    notes = [unit] if unit else []
    notes += [f"{word} {bounds[key]}" for key, word in BOUND_WORDS.items() if key in bounds]
    text = f"{what} ({', '.join(notes)})" if notes else what
    return Field(default, description=text, **bounds)


class Settings(BaseModel):
    """Frozen settings: unknown names, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def resolve_settings(
    model: type[Model], file: Path | None, given: BaseModel | Mapping[str, Any] | None
) -> Model:
    """Return defaults, overridden by the YAML file, overridden by what was given as flags.

    Raises:
        DataError: The file cannot be read, or a name or value does not fit.
    """
    from microstructures.settings import load_settings

    flags = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
    start = load_settings(file, model).model_dump(exclude_unset=True) if file else {}
    try:
        return model.model_validate(_merged(start, flags or {}))
    except ValidationError as error:
        raise DataError(settings_error(error)) from error


def _merged(start: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(start[k], flags[k]) for k in start if isinstance(flags.get(k), dict)}
    return {**start, **flags, **both}


def settings_error(error: ValidationError) -> str:
    """Return the first fault of a pydantic error as one sentence."""
    fault = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"expected a known setting, got {name!r}; `mesoforge init` writes all names"
    said = fault["msg"].removeprefix("Value error, ")
    said = said[0].lower() + said[1:]
    if not fault["loc"]:
        return f"expected settings that fit together, but {said}"
    return f"setting {name}: {said}, got {str(fault['input'])[:80]!r}; change this value"


Side = Annotated[int, Field(ge=8, le=4096)]
Modulus = Annotated[float, Field(ge=0)]
Poisson = Annotated[float, Field(gt=-1, lt=0.5)]
Shape = tuple[Side, ...]
ProcessName = Literal[
    "spinodal",
    "random-field",
    "grain-growth",
    "nucleation-growth",
    "fibre-composite",
    "particle-composite",
    "powder-bed-fusion",
    "sintering",
]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


def _shape(what: str, default: tuple[int, ...] = (64, 64)) -> Any:
    text = f"{what} (voxels, 8 to 4096 a side, two or three sides)"
    return Field(default, description=text, min_length=2, max_length=3)


def _per_phase(default: tuple[float, ...], what: str, note: str) -> Any:
    text = f"{what} of each phase, in the order of its labels ({note})"
    return Field(default, description=text, min_length=1, max_length=256)


class ElasticPhases(Settings):
    """Isotropic elastic constants, one per phase."""

    youngs_modulus_gpa: tuple[Modulus, ...] = _per_phase(
        (20.0, 200.0), "Young's modulus", "GPa, at least 0; 0 is a pore"
    )
    poisson_ratio: tuple[Poisson, ...] = _per_phase(
        (0.33, 0.25), "Poisson's ratio", "above -1, below 0.5"
    )


class DesignSettings(ElasticPhases):
    """An inverse design: which process and structure have the wanted properties."""

    target_c11_gpa: float | None = setting(
        55.0, "Wanted stiffness C11, plane strain; null leaves it free", "GPa", gt=0
    )
    target_conductivity_w_mk: float | None = setting(
        84.0, "Wanted conductivity along direction 1; null leaves it free", "W/(m K)", gt=0
    )
    conductivity_w_mk: tuple[Modulus, ...] = _per_phase(
        (200.0, 20.0), "Conductivity", "W/(m K), at least 0"
    )
    generator: str = setting("spinodal-2d-diffusion", "Generator: a shipped name or a folder")
    gate: str = setting("spinodal-2d-gate", "Statistics gate: a shipped name or a folder")
    field_surrogate: str = setting("elastic-2d-fno", "Field surrogate: a shipped name or a folder")
    simulator: ProcessName | Literal["none"] = setting(
        "spinodal", "Simulator that checks the process; none for a generator of measured maps"
    )
    shape: Shape = _shape("Cell of the designed structure")
    evaluations: int = setting(56, "Evaluations of the search, and of its random rival", ge=4)
    batch: int = setting(4, "Trials proposed at a time", ge=1, le=64)
    bracket_tolerance: float = setting(
        0.01, "Widest relative bracket at which the surrogate's C11 is taken", gt=0, lt=1
    )
    family_draws: int = setting(
        12,
        "Further draws of each trial's process; their mean must be near the targets",
        ge=0,
    )
    family_tolerance: float = setting(0.08, "Largest relative miss of that mean, by property", gt=0)
    process_checks: int = setting(16, "Fresh simulations of the designed process", ge=2, le=1000)
    window_points: int = setting(7, "Points along each axis of the process window", ge=2, le=50)
    window_samples: int = setting(4, "Structures per point of the process window", ge=1, le=100)
    seed: int = setting(0, "Seed of everything random", ge=0)


class DemoSettings(DesignSettings):
    """The demo: the design study with shipped weights, or with everything made from scratch."""

    from_scratch: bool = setting(False, "Simulate and train everything first; use nothing shipped")
    scratch_points: int = setting(512, "From scratch: process points that are simulated", ge=10)
    scratch_generator_steps: int = setting(2000, "From scratch: generator training steps", ge=1)
    scratch_surrogate_steps: int = setting(600, "From scratch: surrogate training steps", ge=1)


class SimulateSettings(Settings):
    """A data set of simulated structures over a process space."""

    process: ProcessName = setting("spinodal", "What is simulated")
    # The command takes these as --range name=low:high.
    ranges: Annotated[dict[str, Range], Parameter(show=False)] = setting(
        {}, "Narrower range of a parameter, name to (low, high); default is the whole space"
    )
    shape: Shape = _shape("Cell")
    points: int = setting(256, "Process points, spread evenly over the space", ge=1, le=1_000_000)
    cells_per_point: int = setting(4, "Cells simulated at each point", ge=1, le=10_000)
    shard: int = setting(32, "Process points simulated and saved at a time", ge=1, le=10_000)
    seed: int = setting(0, "Seed of the points and of every cell", ge=0)


class GenerateSettings(Settings):
    """Structures from a trained generator at one process point."""

    process: dict[str, float | str | None] = setting(
        {}, "Process parameters by name; one left out is unknown to the generator"
    )
    n: Annotated[int, Parameter(alias="-n")] = setting(8, "Structures", ge=1, le=100_000)
    shape: Shape = _shape("Cell of each structure")
    volume_fraction: float | None = setting(
        None, "Wanted volume fraction of phase 1; null leaves it free", gt=0, lt=1
    )
    sections: tuple[str, ...] = setting(
        (),
        "Volumes from models of 2-D sections: the models normal to axis 1 and 2 where those differ "
        "from the one normal to axis 0",
        max_length=2,
    )
    extrapolate: bool = setting(
        False, "Allow a process beyond the training range; every structure is then flagged"
    )
    guidance: float = setting(
        1.0,
        "Diffusion: weight of the process against an unknown one; above 1 samples keep closer to "
        "what is typical, scatter less and cost twice as much",
        ge=1,
        le=5,
    )
    micrograph: str | None = setting(
        None, "Folder of a micrograph renderer: grey beside the phases, and image and mask pairs"
    )
    seed: int = setting(0, "Seed of the structures", ge=0)


class PredictSettings(ElasticPhases):
    """Effective stiffness and fields of given structures."""

    field_surrogate: str = setting("elastic-2d-fno", "Field surrogate: a shipped name or a folder")
    property_surrogate: str = setting(
        "stiffness-2d", "Property surrogate, asked where bracket_tolerance is set: name or folder"
    )
    solver: bool = setting(False, "Solve instead of asking the surrogate")
    tolerance: float = setting(1e-6, "Solver tolerance (relative residual)", gt=0, lt=1)
    bracket_tolerance: float | None = setting(
        None,
        "Widest relative bracket: each file's stiffness, without fields, by the property surrogate "
        "where it is as sure, else by the solver; null: the field surrogate, or the solver",
        gt=0,
        lt=1,
    )
    guaranteed: bool = setting(
        False, "With bracket_tolerance: no bracket that is only calibrated (90 %)"
    )
    conductivity_w_mk: tuple[Modulus, ...] = setting(
        (), "Conductivity of each phase: predict the effective one instead; empty: not (W/(m K))"
    )
    expansion_per_k: tuple[float, ...] = setting(
        (),
        "Linear thermal expansion of each of two phases: the effective one too; empty: not (1/K)",
    )
    image_surrogate: str | None = setting(
        None,
        "Image-to-field surrogate (stress-2d-pix2pix, or of train image-field): stress by it "
        "instead, cracks and walls included, without a bracket; with solver: and its error map",
    )
    measured_property: str | None = setting(
        None,
        "Model of a measured property (train measured): predict that of one specimen instead, all "
        "files being pictures of it",
    )
    largest_distance: float | None = setting(
        None,
        "Refuse structures further from the training set (1 is its edge); null: flag them",
        gt=0,
    )
    values: tuple[float, ...] = setting(
        (), "Stored values of label 0, 1, ... in a picture, for example 0 255; empty: as stored"
    )
    voxel_size_um: float | None = setting(
        None, "Voxel edge where the file holds none; null means 1", "um", gt=0
    )


class PickSettings(ElasticPhases):
    """Which cells of a pool to label next."""

    count: int = setting(64, "Cells to pick", ge=1)
    property_surrogate: str | None = setting(
        None, "Property surrogate whose spread picks: a shipped name or a folder"
    )
    field_surrogate: str | None = setting(
        None, "Field surrogate whose certificate's width picks: a shipped name or a folder"
    )
    seed: int = setting(0, "Seed of the draw", ge=0)


class ExplainSettings(ElasticPhases):
    """What a property surrogate looks at in a structure."""

    property_surrogate: str = setting(
        "stiffness-2d", "Property surrogate: a shipped name or a folder"
    )
    entry: tuple[Annotated[int, Field(ge=1, le=6)], Annotated[int, Field(ge=1, le=6)]] = setting(
        (1, 1), "Row and column of the stiffness matrix that is explained, from 1"
    )
    level: int = setting(-1, "Encoder level of Grad-CAM from 0, the finest; -1 is the last")
    values: tuple[float, ...] = setting(
        (), "Stored values of label 0, 1, ... in a picture, for example 0 255; empty: as stored"
    )
    voxel_size_um: float | None = setting(
        None, "Voxel edge where the file holds none; null means 1", "um", gt=0
    )


class BenchSettings(Settings):
    """A benchmark: how much of it is measured. Defaults are the full sizes of the bars."""

    quick: bool = setting(False, "Toy sizes: shows that everything runs, says nothing of speed")
    repetitions: int = setting(3, "Measurements of each rival, taken in turn", ge=1, le=100)
    bracket_cells: int = setting(1000, "Random cells for the continuum bracket", ge=1)
    certificate_cells: int = setting(10_000, "Random cells for the discrete certificate", ge=1)
    many_cells: int = setting(10_000, "Cells of 64^2 for the label-making rate", ge=1)
    seed: int = setting(0, "Seed of everything random", ge=0)


class MicrographBenchSettings(Settings):
    """A benchmark of rendered micrographs: how they look, and what they teach a segmenter."""

    held_out: float = setting(0.3, "Share of the pictures held out, by specimen", gt=0, lt=1)
    crop: int = setting(128, "Side of the crops that the generator of phases learns from", ge=8)
    pictures: int = setting(9, "Pictures generated for each process of the data", ge=1, le=1000)
    segmenter_steps: int = setting(150, "Training steps of each segmenter", ge=1)
    segmenters: int = setting(2, "Segmenters trained on each source, of different seeds", ge=1)
    seed: int = setting(0, "Seed of everything random", ge=0)


class GeneratorBenchSettings(Settings):
    """A benchmark of trained generators: which tracks, and how much of each."""

    tier: Literal["small", "full"] = setting(
        "small", "Small: 40 conditions of 64 cells in 2-D, a look at 3-D; full: larger cells too"
    )
    quick: bool = setting(False, "Toy sizes: shows that everything runs, says nothing of quality")
    track: tuple[Literal["A", "B", "C"], ...] = setting(
        ("A", "B", "C"), "A: simulators; B: measured processes; C: 2-D to 3-D", min_length=1
    )
    seed: int = setting(0, "Seed of everything random", ge=0)


class SurrogateBenchSettings(Settings):
    """A benchmark of surrogates: how much of each chapter is measured."""

    tier: Literal["small", "full"] = setting(
        "small", "Small: an hour of one core; full: the sizes of the bars"
    )
    quick: bool = setting(False, "Toy sizes: shows that everything runs, says nothing of quality")
    seed: int = setting(0, "Seed of everything random", ge=0)

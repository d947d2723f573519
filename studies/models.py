"""The trained models and materials that a design study works with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import generators
import surrogates
from generators import ConditionalDiffusion, SectionDiffusion
from generators.families import load_generator as load_family
from generators.generator import ConditionalGenerator
from microstructures import DataError
from microstructures.publishing import folder_digest
from networks.saving import resolve_model
from physics import CorrelationGate, IsotropicElastic
from physics.processes import (
    FibreComposite,
    GrainGrowth,
    NucleationGrowth,
    ParticleComposite,
    PowderBedFusion,
    RandomField,
    Sintering,
    SpinodalDecomposition,
)
from studies.run_folder import find_folder
from studies.settings import DesignSettings, ElasticPhases
from surrogates import FieldSurrogate, ImageFieldSurrogate, PropertySurrogate


@dataclass(frozen=True)
class Models:
    """A generator, its statistics gate, and the field surrogate."""

    generator: ConditionalGenerator
    gate: CorrelationGate
    surrogate: FieldSurrogate


def load_generator(name: str) -> ConditionalGenerator:
    """Load a generator of any family from a training run, a model folder, or by shipped name."""
    return load_family(_located(name))


def load_generator_of(
    name: str, shape: Sequence[int], sections: Sequence[str] = ()
) -> ConditionalGenerator:
    """Load a generator for cells of a shape: for volumes, 2-D diffusion models give the sections.

    `sections` are the models of sections normal to axis 1 and 2, where they differ.
    """
    first = load_generator(name)
    if not (len(shape) == 3 and isinstance(first, ConditionalDiffusion) and first.net.dim == 2):
        if sections:
            raise DataError(
                f"expected sections only for volumes of a 2-D diffusion model, got {name} and "
                f"shape {tuple(shape)}"
            )
        return first
    return SectionDiffusion.of_sections(
        first, *[ConditionalDiffusion.from_pretrained(_located(other)) for other in sections]
    )


def load_gate(name: str) -> CorrelationGate:
    """Load a gate from a training run, its folder, or by shipped name."""
    return CorrelationGate.load(resolve_model(_located(name), _shipped_with(generators)))


def load_surrogate(name: str) -> FieldSurrogate:
    """Load a field surrogate from a training run, a model folder, or by shipped name."""
    return FieldSurrogate.from_pretrained(_located(name))


def load_property_surrogate(name: str) -> PropertySurrogate:
    """Load a property surrogate from a training run, a model folder, or by shipped name."""
    return PropertySurrogate.from_pretrained(_located(name))


def load_image_surrogate(name: str) -> ImageFieldSurrogate:
    """Load an image-to-field surrogate from a training run, a model folder, or by shipped name."""
    return ImageFieldSurrogate.from_pretrained(_located(name))


def load_models(settings: DesignSettings) -> Models:
    """Load all models of a design study.

    Raises:
        CheckpointError: One is not there or was altered.
    """
    return Models(
        load_generator(settings.generator),
        load_gate(settings.gate),
        load_surrogate(settings.field_surrogate),
    )


def model_hashes(settings: DesignSettings) -> dict[str, str]:
    """Return one hash over all files of each model, by which a resumed run knows its models."""
    places = {
        "generator": (settings.generator, generators),
        "gate": (settings.gate, generators),
        "field_surrogate": (settings.field_surrogate, surrogates),
    }
    return {
        f"{role}_sha256": folder_digest(resolve_model(_located(name), _shipped_with(package)))
        for role, (name, package) in places.items()
    }


def make_simulator(name: str) -> Any:
    """Return the named simulator with its default material constants."""
    simulators = {
        "spinodal": SpinodalDecomposition,
        "random-field": RandomField,
        "grain-growth": GrainGrowth,
        "nucleation-growth": NucleationGrowth,
        "fibre-composite": FibreComposite,
        "particle-composite": ParticleComposite,
        "powder-bed-fusion": PowderBedFusion,
        "sintering": Sintering,
    }
    if name not in simulators:
        raise DataError(f"expected a simulator of {', '.join(simulators)}, got {name!r}")
    return simulators[name]()


def elastic_materials(settings: ElasticPhases, n_phases: int) -> list[IsotropicElastic]:
    """Return one elastic material per phase.

    Raises:
        DataError: Not as many moduli or Poisson's ratios as phases, or all phases are pores.
    """
    _one_each("youngs_modulus_gpa", settings.youngs_modulus_gpa, n_phases)
    _one_each("poisson_ratio", settings.poisson_ratio, n_phases)
    _some_above_zero("youngs_modulus_gpa", settings.youngs_modulus_gpa)
    pairs = zip(settings.youngs_modulus_gpa, settings.poisson_ratio, strict=True)
    return [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=nu) for e, nu in pairs]


def conductivities(settings: DesignSettings, n_phases: int) -> list[float]:
    """Return one conductivity per phase in W/(m K).

    Raises:
        DataError: Not as many as phases, or all phases are insulators.
    """
    _one_each("conductivity_w_mk", settings.conductivity_w_mk, n_phases)
    _some_above_zero("conductivity_w_mk", settings.conductivity_w_mk)
    return list(settings.conductivity_w_mk)


def _one_each(name: str, values: tuple[float, ...], n_phases: int) -> None:
    if len(values) != n_phases:
        raise DataError(
            f"expected {n_phases} values of {name}, one per phase, got {len(values)}: "
            f"{', '.join(f'{v:g}' for v in values)}"
        )


def _some_above_zero(name: str, values: tuple[float, ...]) -> None:
    if max(values) <= 0:
        raise DataError(f"expected {name} above 0 for at least one phase, got 0 for all")


def _located(name: str) -> str:
    return str(find_folder(Path(name), "model"))


def _shipped_with(package: ModuleType) -> Path:
    return Path(str(package.__file__)).parent / "weights"

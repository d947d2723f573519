"""ConditionalGenerator: what every family of generators does alike, from request to structure."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.fractions import attainable, cut_exactly, wanted_fractions
from generators.given_voxels import check_given, pin_given
from generators.phase_net import PhaseNet, signed_indicators
from generators.sample_noise import latent_codes, noise_generators, scattered_fractions
from generators.training_density import TrainingDensity, units_beyond
from microstructures import (
    CheckpointError,
    DataError,
    Microstructure,
    MicrostructureDataset,
    ProcessSpace,
)
from microstructures.structure import GeneratedMicrostructure, ProcessValue
from networks.conditioning import process_units
from networks.saving import load_model, resolve_model, save_model

SHIPPED = Path(__file__).parent / "weights"
Process = Mapping[str, ProcessValue]
Family = TypeVar("Family", bound="ConditionalGenerator")
CHUNK_VOXELS = 2**18  # voxels generated at once: bounds memory at no cost in speed


class ConditionalGenerator(ABC):
    """Process parameters and a latent code → microstructures, with exact constraints.

    A process point and a code z ~ N(0, I) say what kind of microstructure, the seed says which
    one. A family supplies its net (`_net`) and how noise becomes phases (`_logits`).

    Limits: statistics are those of the training data at that process point. Points outside the
    bounds of `space` raise unless extrapolation is asked for, and then every sample is flagged.
    The size must be a multiple of `size_multiple`; features longer than the training cell were
    never seen.

    Args:
        net: The trained net.
        space: Process parameters with the range of the training data.
        voxel_size_um: Voxel edge of the training data in micrometres.
        periodic: One flag per axis: samples wrap around.
        phase_names: One name per label.
        match_fractions: Cut samples at the volume fractions that the net expects of process and
            code.
        density: How densely the training data covers the process window.
        steps: Net evaluations per sample.
    """

    least_steps: ClassVar[int] = 1
    most_steps: ClassVar[int] = 1

    def __init__(
        self,
        net: PhaseNet,
        *,
        space: ProcessSpace,
        voxel_size_um: float,
        periodic: Sequence[bool],
        phase_names: Sequence[str],
        match_fractions: bool,
        density: TrainingDensity | None = None,
        steps: int | None = None,
    ) -> None:
        self.net = net.eval().requires_grad_(False)
        self.space = space
        self.voxel_size_um = float(voxel_size_um)
        self.periodic = tuple(bool(p) for p in periodic)
        self.phase_names = tuple(phase_names)
        self.match_fractions = match_fractions
        self.training_density = density
        self.steps = self.least_steps if steps is None else steps

    @staticmethod
    @abstractmethod
    def _net(config: Mapping[str, Any], space: ProcessSpace) -> PhaseNet:
        """Return the family's untrained net of a saved config."""

    @abstractmethod
    def _logits(
        self,
        condition: Float[Tensor, "batch features"],
        generators: Sequence[torch.Generator],
        *,
        shape: Sequence[int],
        fractions: Float[Tensor, "batch phase"] | None,
        given: Tensor | None,
        steps: int,
    ) -> Float[Tensor, "batch phase *space"]:
        """Return logits of the phases, differentiable in the condition.

        Sample k draws all its noise from generators[k]. The logits of given voxels need not
        agree with them, since sampling keeps them in any case, but the surroundings should.
        """

    @classmethod
    def of_dataset(
        cls: type[Family],
        net: PhaseNet,
        dataset: MicrostructureDataset,
        *,
        match_fractions: bool,
        steps: int | None = None,
    ) -> Family:
        """Return the generator of a net trained on a dataset."""
        return cls(
            net,
            space=dataset.space,
            voxel_size_um=dataset.voxel_size_um,
            periodic=dataset.periodic,
            phase_names=dataset.phase_names,
            match_fractions=match_fractions,
            density=TrainingDensity.fit(dataset.process_units, dataset.space),
            steps=steps,
        )

    @property
    def latent_dim(self) -> int:
        """Length of the code z."""
        return self.net.latent_dim

    @property
    def size_multiple(self) -> int:
        """Every side of a sample is a multiple of this."""
        return self.net.size_multiple

    def density(self, process: Process | Sequence[Process]) -> Float[Tensor, " batch"]:
        """Return how densely the training data covers process points.

        1 as at a typical training sample, 0 far from all of them; NaN when the model was saved
        without it. Points up to half a window beyond the bounds may be asked for.
        """
        points = [process] if isinstance(process, Mapping) else list(process)
        units, _ = units_beyond(self.space, points)
        if self.training_density is None:
            return torch.full((len(units),), math.nan, dtype=torch.float64)
        return self.training_density(units)

    def sample(
        self,
        process: Process | Sequence[Process],
        *,
        n: int = 1,
        shape: Sequence[int],
        seed: int,
        latent: Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
        volume_fraction: float | Sequence[float] | None = None,
        steps: int | None = None,
        given: Tensor | np.ndarray | None = None,
        extrapolate: bool = False,
    ) -> list[GeneratedMicrostructure]:
        """Draw microstructures.

        Args:
            process: One process dict (n samples of it) or several (n of each); a missing name or
                None means unknown.
            n: Samples per process point.
            shape: Voxels along each axis, multiples of `size_multiple`.
            seed: Sample k overall depends on (seed, k) alone.
            latent: One code for all samples or one per sample; drawn from N(0, I) when None.
            volume_fraction: Wanted fraction (of phase 1, or of all phases), met to one voxel.
                When None it follows process and code if the model learned to match fractions,
                else it is free.
            steps: Net evaluations, between `least_steps` and `most_steps`.
            given: Labels `(*space)`, -1 where free: these voxels come back exactly, count
                towards the fractions, and the rest grows around them (see `place_window`).
            extrapolate: Allow process values up to half a window's width beyond the range of the
                training data; samples there are flagged `extrapolated`.

        Returns:
            Samples in order, n in a row for each process point, each a
            `GeneratedMicrostructure` with its flag `extrapolated`.

        Raises:
            DataError: The process is out of bounds, or shape, code, fraction, given voxels or
                steps do not fit.
        """
        points = [process] if isinstance(process, Mapping) else list(process)
        points = [p for p in points for _ in range(n)]
        if not points:
            raise DataError("expected a process point and n >= 1, got no samples to draw")
        units, beyond = self._units(points, extrapolate=extrapolate)
        codes = latent_codes(latent, len(points), length=self.latent_dim, seed=seed)
        self._check_shape(shape)
        known = check_given(given, shape, len(self.phase_names))
        wanted = self._wanted(volume_fraction, len(points), known)
        request = {"shape": shape, "given": known, "steps": self._checked_steps(steps)}
        labels = []
        for part in torch.arange(len(points)).split(_at_once(shape)):
            labels += self._labels(
                units[part],
                codes[part],
                generators=noise_generators(seed, part.tolist()),
                wanted=None if wanted is None else wanted[part],
                **request,
            )
        return [
            GeneratedMicrostructure(
                phases=label.numpy(),
                voxel_size_um=self.voxel_size_um,
                periodic=self.periodic,
                process=dict(point),
                phase_names=self.phase_names,
                extrapolated=outside,
            )
            for label, point, outside in zip(labels, points, beyond, strict=True)
        ]

    def decode(
        self,
        latent: Float[Tensor, "batch latent"],
        process: Process | Sequence[Process],
        *,
        shape: Sequence[int],
        seed: int,
        volume_fraction: float | Sequence[float] | None = None,
        steps: int | None = None,
    ) -> Float[Tensor, "batch phase *space"]:
        """Return soft phases (they sum to 1), differentiable in the code.

        Sample k starts from the noise of (seed, k), so `decode` and `sample` agree: the cut of
        this field is that sample. Offsets that keep the volume fraction are held constant in the
        gradient.
        """
        points = [process] * len(latent) if isinstance(process, Mapping) else list(process)
        if len(points) != len(latent):
            raise DataError(f"expected {len(latent)} process points, got {len(points)}")
        self._check_shape(shape)
        logits, _ = self._constrained(
            process_units(self.space, points),
            latent,
            shape=shape,
            generators=noise_generators(seed, range(len(points))),
            wanted=self._wanted(volume_fraction, len(points), None),
            given=None,
            steps=self._checked_steps(steps),
        )
        return F.softmax(logits, 1)

    @torch.no_grad()
    def encode(self, microstructures: Sequence[Microstructure]) -> Float[Tensor, "batch latent"]:
        """Return the mean code of microstructures of one shape, given their own process."""
        phases = torch.stack([torch.from_numpy(m.phases) for m in microstructures])
        self._check_shape(phases.shape[1:])
        names = self.space.names
        known = [{k: v for k, v in m.process.items() if k in names} for m in microstructures]
        x = signed_indicators(phases, len(self.phase_names))
        return self.net.standard_code(x, self.net.process(process_units(self.space, known)))

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        density = self.training_density
        config = {
            "net": dict(self.net.config),
            "voxel_size_um": self.voxel_size_um,
            "phase_names": list(self.phase_names),
            "match_fractions": self.match_fractions,
            "steps": self.steps,
            "density": None if density is None else density.to_json(),
        }
        return save_model(
            folder,
            name=type(self).__name__,
            config=config,
            state=self.net.state_dict(),
            card=card,
            half=half,
        )

    @classmethod
    def from_pretrained(cls: type[Family], folder_or_name: str | Path) -> Family:
        """Load a saved model of this family, or shipped weights by name.

        `generators.families.load_generator` finds the family by itself.

        Raises:
            CheckpointError: No such model, another family, its files were altered, or config and
                weights do not fit each other.
        """
        folder = resolve_model(folder_or_name, SHIPPED)
        config, state = load_model(folder, name=cls.__name__)
        try:
            return cls._of_saved(config, state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, DataError) as error:
            said = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"expected a {cls.__name__} of this mesoforge in {folder}, got config and weights "
                f"that do not fit ({type(error).__name__}: {said}); train the model again"
            ) from error

    @classmethod
    def _of_saved(
        cls: type[Family], config: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> Family:
        # Format 1 of diffusion models calls the net by what it does.
        net_config = config["net"] if "net" in config else config["denoiser"]
        space = ProcessSpace.from_json(net_config["space"])
        net = cls._net(net_config, space)
        net.load_state_dict(state)
        if len(config["phase_names"]) != net.n_phases:
            raise DataError(f"{net.n_phases} phases, {len(config['phase_names'])} names")
        density = config.get("density")
        return cls(
            net,
            space=space,
            voxel_size_um=config["voxel_size_um"],
            periodic=net_config["periodic"],
            phase_names=config["phase_names"],
            match_fractions=config["match_fractions"],
            density=None if density is None else TrainingDensity.from_json(density),
            steps=config["steps"],
        )

    def _units(self, points: Sequence[Process], *, extrapolate: bool) -> tuple[Tensor, list[bool]]:
        """Return unit coordinates, and which points lie beyond the window."""
        if extrapolate:
            return units_beyond(self.space, points)
        return process_units(self.space, points), [False] * len(points)

    @torch.no_grad()
    def _labels(self, units: Tensor, codes: Tensor, **request: Any) -> Tensor:
        logits, fractions = self._constrained(units, codes, **request)
        if fractions is None:
            labels = pin_given(logits, request["given"]).argmax(1)
        else:
            labels = cut_exactly(logits, fractions, request["given"])
        return labels.to(torch.uint8)

    def _constrained(
        self,
        units: Tensor,
        codes: Tensor,
        *,
        shape: Sequence[int],
        generators: Sequence[torch.Generator],
        wanted: Tensor | None,
        given: Tensor | None,
        steps: int,
    ) -> tuple[Tensor, Tensor | None]:
        condition = self.net.condition(self.net.process(units), codes)
        if wanted is None and self.match_fractions:
            wanted = scattered_fractions(*self.net.fractions(condition.detach()), generators)
            wanted = wanted if given is None else attainable(wanted, given)
        logits = self._logits(
            condition, generators, shape=shape, fractions=wanted, given=given, steps=steps
        )
        return logits, wanted

    def _wanted(
        self, volume_fraction: float | Sequence[float] | None, n: int, given: Tensor | None
    ) -> Tensor | None:
        if volume_fraction is None:
            return None
        wanted = wanted_fractions(volume_fraction, len(self.phase_names), given)
        return wanted.expand(n, -1)

    def _checked_steps(self, steps: int | None) -> int:
        steps = self.steps if steps is None else steps
        if not self.least_steps <= steps <= self.most_steps:
            raise DataError(f"expected {self.least_steps} to {self.most_steps} steps, got {steps}")
        return steps

    def _check_shape(self, shape: Sequence[int]) -> None:
        if len(shape) != len(self.periodic) or any(s < 1 or s % self.size_multiple for s in shape):
            raise DataError(
                f"expected {len(self.periodic)} sides that are multiples of {self.size_multiple}, "
                f"got {tuple(shape)}{self._larger(shape)}"
            )

    def _larger(self, shape: Sequence[int]) -> str:
        """Return the advice to draw the next larger shape and cut it, where there is one."""
        if len(shape) != len(self.periodic) or any(s < 1 for s in shape):
            return ""
        larger = tuple(-(-s // self.size_multiple) * self.size_multiple for s in shape)
        return f"; draw {larger} and cut it (a cut cell is not periodic)"


def _at_once(shape: Sequence[int]) -> int:
    return max(1, CHUNK_VOXELS // math.prod(int(s) for s in shape))

"""MicrographRenderer: phases → grey micrographs, as the training pictures would show them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from jaxtyping import Float, UInt8
from torch import Tensor

from generators.micrograph_net import MicrographDenoiser
from generators.phase_net import signed_indicators
from generators.training_density import units_beyond
from microstructures import DataError, Microstructure, ProcessSpace
from microstructures.micrographs import GREY
from microstructures.seeds import generator_for
from networks.saving import load_model, save_model

Structure = TypeVar("Structure", bound=Microstructure)
# Grey levels stored in 8 bits are known to a thirtieth of a usual contrast: no need to go below.
SIGMA_MIN, SIGMA_MAX = 0.03, 20.0
LEAST_STEPS, MOST_STEPS = 4, 64
CHUNK_VOXELS = 2**18  # voxels rendered at once: bounds memory


@dataclass(frozen=True)
class Acquisitions:
    """How each training picture was taken.

    Args:
        units: Unit coordinates of its process, NaN where unknown.
        tones: Mean and standard deviation of its grey values.
    """

    units: Float[Tensor, "picture parameter"]
    tones: Float[Tensor, "picture 2"]

    def nearest(self, units: Float[Tensor, " parameter"]) -> list[int]:
        """Return the pictures whose process is nearest, all of them where nothing is known."""
        distance = (self.units - units).square().nan_to_num(0.0).sum(1)
        return torch.nonzero(distance <= distance.min() + 1e-6).flatten().tolist()

    def to_json(self) -> dict[str, Any]:
        """Return plain data; unknown coordinates as None."""
        rows = [[None if math.isnan(u) else u for u in row] for row in self.units.tolist()]
        return {"units": rows, "tones": self.tones.tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Acquisitions":
        """Return what `to_json` gave."""
        rows = [[math.nan if u is None else u for u in row] for row in data["units"]]
        units = torch.tensor(rows).reshape(len(rows), -1)
        return cls(units, torch.tensor(data["tones"]))


class MicrographRenderer:
    """Draws the grey micrograph that the training microscope would take of given phases.

    It follows any generator, and takes simulated or measured phase maps as well: image and mask
    agree by construction, which is what training data for segmentation needs. A conditional
    diffusion model (see `MicrographDenoiser`) adds texture, noise and the shading of edges. Each
    picture takes its brightness and contrast, and process values that the structure lacks, from a
    training picture drawn at random among those of the nearest process.

    Limits: phases as in the training data, at its voxel size; contrast that spans more than a
    training crop (charging, bending, tilt across the picture) was never seen whole, and is drawn
    only as far as the net reaches. Artefacts that the masks do not show (dust, scratches) appear
    as far as training pictures had them.

    Args:
        net: The trained net.
        space: Process parameters of the training data.
        voxel_size_um: Voxel edge of the training data.
        phase_names: One name per label.
        acquisitions: How the training pictures were taken.
        steps: Net evaluations per picture.

    >>> renderer = MicrographRenderer.from_pretrained("runs/sem/model")  # doctest: +SKIP
    >>> pairs = renderer.render(model.sample({}, n=8, shape=(64, 64), seed=0), seed=0)
    ... # doctest: +SKIP
    """

    def __init__(
        self,
        net: MicrographDenoiser,
        *,
        space: ProcessSpace,
        voxel_size_um: float,
        phase_names: Sequence[str],
        acquisitions: Acquisitions,
        steps: int = 16,
    ) -> None:
        self.space = space
        self.voxel_size_um = float(voxel_size_um)
        self.phase_names = tuple(phase_names)
        self.acquisitions = acquisitions
        self.steps = steps
        self._nets = {tuple(net.config["periodic"]): net.eval().requires_grad_(False)}

    @property
    def net(self) -> MicrographDenoiser:
        """The net as it was trained."""
        return next(iter(self._nets.values()))

    @property
    def size_multiple(self) -> int:
        """Every side of a picture is a multiple of this."""
        return self.net.size_multiple

    @torch.no_grad()
    def render(
        self,
        structures: Sequence[Structure],
        *,
        seed: int,
        brightness: float | None = None,
        contrast: float | None = None,
        steps: int | None = None,
    ) -> list[Structure]:
        """Return the structures with an 8-bit channel "grey".

        Args:
            structures: Any phase maps of the training data's phases and voxel size. Periodic ones
                get periodic micrographs.
            seed: Picture k depends on (seed, k) alone.
            brightness: Mean grey of the pictures, 0 to 255; that of a training picture when None.
            contrast: Standard deviation of their grey values; likewise.
            steps: Net evaluations, between 4 and 64.

        Raises:
            DataError: Phases, voxel size, shape, tone or steps do not fit.
        """
        steps = self.steps if steps is None else steps
        if not LEAST_STEPS <= steps <= MOST_STEPS:
            raise DataError(f"expected {LEAST_STEPS} to {MOST_STEPS} steps, got {steps}")
        _check_tone(brightness, contrast)
        for structure in structures:
            self._check(structure)
        rendered: list[Structure] = []
        for first, part in _alike(structures):
            numbers = range(first, first + len(part))
            units, tones = self._acquired(part, numbers, seed, brightness, contrast)
            phases = torch.stack([torch.from_numpy(s.phases) for s in part])
            noise = torch.stack(
                [
                    torch.randn(1, *phases.shape[1:], generator=generator_for(seed, "grey", k))
                    for k in numbers
                ]
            )
            grey = self._drawn(phases, units, tones, noise, part[0].periodic, steps)
            rendered += [
                s.with_channels(**{GREY: g.numpy()}) for s, g in zip(part, grey, strict=True)
            ]  # type: ignore[misc]
        return rendered

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        config = {
            "net": self.net.config,
            "voxel_size_um": self.voxel_size_um,
            "phase_names": list(self.phase_names),
            "acquisitions": self.acquisitions.to_json(),
            "steps": self.steps,
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
    def from_pretrained(cls, folder: str | Path) -> "MicrographRenderer":
        """Load a saved renderer.

        Raises:
            CheckpointError: The folder is no renderer, or its files were altered.
        """
        config, state = load_model(folder, name=cls.__name__)
        space = ProcessSpace.from_json(config["net"]["space"])
        net = MicrographDenoiser(**{**config["net"], "space": space})
        net.load_state_dict(state)
        return cls(
            net,
            space=space,
            voxel_size_um=config["voxel_size_um"],
            phase_names=config["phase_names"],
            acquisitions=Acquisitions.from_json(config["acquisitions"]),
            steps=config["steps"],
        )

    def _check(self, structure: Microstructure) -> None:
        net = self.net
        if len(structure.shape) != net.dim or any(s % net.size_multiple for s in structure.shape):
            raise DataError(
                f"expected structures of {net.dim} axes whose sides are multiples of "
                f"{net.size_multiple}, got {structure.shape}; crop them"
            )
        if structure.n_phases != net.n_phases:
            raise DataError(
                f"expected the phases {', '.join(self.phase_names)} of the training data, got "
                f"{', '.join(structure.phase_names)}; choose another renderer"
            )
        if not math.isclose(structure.voxel_size_um, self.voxel_size_um, rel_tol=0.01):
            raise DataError(
                f"expected voxels of {self.voxel_size_um:g} um as in the training pictures, got "
                f"{structure.voxel_size_um:g} um; resample the structure"
            )

    def _acquired(
        self,
        structures: Sequence[Microstructure],
        numbers: Sequence[int],
        seed: int,
        brightness: float | None,
        contrast: float | None,
    ) -> tuple[Float[Tensor, "batch parameter"], Float[Tensor, "batch 2"]]:
        """Return process coordinates and tones, from a training picture what nobody gave."""
        names = self.space.names
        known = [{k: v for k, v in s.process.items() if k in names} for s in structures]
        asked, _ = units_beyond(self.space, known)
        units, tones = [], []
        for k, own in zip(numbers, asked.float(), strict=True):
            candidates = self.acquisitions.nearest(own)
            draw = torch.randint(len(candidates), (1,), generator=generator_for(seed, "tone", k))
            picture = candidates[int(draw)]
            units.append(torch.where(own.isnan(), self.acquisitions.units[picture], own))
            tone = self.acquisitions.tones[picture].tolist()
            tones.append(
                [
                    tone[0] if brightness is None else brightness,
                    tone[1] if contrast is None else contrast,
                ]
            )
        return torch.stack(units), torch.tensor(tones)

    def _drawn(
        self,
        phases: UInt8[Tensor, "batch *space"],
        units: Float[Tensor, "batch parameter"],
        tones: Float[Tensor, "batch 2"],
        noise: Float[Tensor, "batch 1 *space"],
        periodic: tuple[bool, ...],
        steps: int,
    ) -> UInt8[Tensor, "batch *space"]:
        """Return grey levels by DPM-Solver++ (Lu et al. 2022) from unit noise."""
        net = self._padded(periodic)
        indicators = signed_indicators(phases, net.n_phases)
        condition = net.condition(units, tones)
        scheduler = EDMDPMSolverMultistepScheduler(
            sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, sigma_data=1.0, solver_order=2
        )
        scheduler.set_timesteps(steps)
        x = noise * SIGMA_MAX
        for index, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[index]
            raw = net.raw(x, sigma.expand(len(x)).to(x.dtype), indicators, condition)
            x = scheduler.step(raw, timestep, x, return_dict=False)[0]
        column = [-1, *[1] * (phases.ndim - 1)]
        grey = tones[:, 0].view(column) + tones[:, 1].view(column) * x[:, 0]
        return grey.round().clamp(0, 255).to(torch.uint8)

    def _padded(self, periodic: tuple[bool, ...]) -> MicrographDenoiser:
        """Return the net with another padding: its weights do not depend on that."""
        if periodic not in self._nets:
            config = {**self.net.config, "space": self.space, "periodic": periodic}
            other = MicrographDenoiser(**config).eval().requires_grad_(False)
            other.load_state_dict(self.net.state_dict())
            self._nets[periodic] = other
        return self._nets[periodic]


def _alike(structures: Sequence[Structure]) -> Iterator[tuple[int, list[Structure]]]:
    """Yield the index of the first, and runs of structures of one shape and periodicity."""
    part: list[Structure] = []
    for k, structure in enumerate(structures):
        fits = part and (part[0].shape, part[0].periodic) == (structure.shape, structure.periodic)
        if part and (not fits or len(part) * structure.phases.size >= CHUNK_VOXELS):
            yield k - len(part), part
            part = []
        part.append(structure)
    if part:
        yield len(structures) - len(part), part


def _check_tone(brightness: float | None, contrast: float | None) -> None:
    if brightness is not None and not 0 <= brightness <= 255:
        raise DataError(f"expected a brightness from 0 to 255, got {brightness}")
    if contrast is not None and not 0 < contrast <= 128:
        raise DataError(f"expected a contrast above 0, at most 128, got {contrast}")

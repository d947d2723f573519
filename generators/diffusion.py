"""ConditionalDiffusion: process parameters and a latent code → microstructures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from generators.denoiser import PhaseDenoiser, signed_indicators
from generators.fractions import check_fractions, cut_exactly
from generators.sampler import MOST_STEPS, sample_logits
from microstructures import DataError, Microstructure, ProcessSpace
from microstructures.seeds import generator_for
from microstructures.structure import ProcessValue
from networks.conditioning import process_units
from networks.saving import load_model, resolve_model, save_model

SHIPPED = Path(__file__).parent / "weights"
Process = Mapping[str, ProcessValue]
CHUNK_VOXELS = 2**18  # voxels denoised at once: bounds memory at no cost in speed


class ConditionalDiffusion:
    """A diffusion autoencoder conditioned on process parameters.

    A process point and a code z ~ N(0, I) say what kind of microstructure, the seed says which
    one. At most 16 net evaluations per sample, 8 by default.

    Limits: statistics are those of the training data at that process point; nothing is known
    outside the bounds of `space`, and such points raise. A volume fraction that the process does
    not give can be asked for, but then the structure leaves the family. The size must be a
    multiple of `size_multiple`; cells other than the training size are extrapolation in so far
    as features longer than the training cell were never seen.

    >>> model = ConditionalDiffusion.from_pretrained("spinodal-2d-diffusion")  # doctest: +SKIP
    >>> model.sample({"composition": 0.5}, n=4, shape=(64, 64), seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        denoiser: PhaseDenoiser,
        *,
        space: ProcessSpace,
        voxel_size_um: float,
        periodic: Sequence[bool],
        phase_names: Sequence[str],
        match_fractions: bool,
        steps: int = 8,
    ) -> None:
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.space = space
        self.voxel_size_um = float(voxel_size_um)
        self.periodic = tuple(bool(p) for p in periodic)
        self.phase_names = tuple(phase_names)
        self.match_fractions = match_fractions
        self.steps = steps

    @property
    def latent_dim(self) -> int:
        """Length of the code z."""
        return self.denoiser.latent_dim

    @property
    def size_multiple(self) -> int:
        """Every side of a sample is a multiple of this."""
        return self.denoiser.size_multiple

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
    ) -> list[Microstructure]:
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
            steps: Net evaluations, at most 16.

        Returns:
            Samples in order, n in a row for each process point.

        Raises:
            DataError: The process is out of bounds, or shape, code, fraction or steps do not fit.
        """
        points = [process] if isinstance(process, Mapping) else list(process)
        points = [p for p in points for _ in range(n)]
        if not points:
            raise DataError(
                "expected at least one process point and n >= 1, got no samples to draw"
            )
        units = process_units(self.space, points)
        codes = self._codes(latent, len(points), seed)
        wanted = self._wanted(volume_fraction, len(points))
        samples: list[Microstructure] = []
        chunk = max(1, CHUNK_VOXELS // max(1, _product(shape)))
        for start in range(0, len(points), chunk):
            part = slice(start, start + chunk)
            samples += self._sample_chunk(
                points[part],
                units[part],
                codes[part],
                shape=shape,
                seed=seed,
                first=start,
                wanted=None if wanted is None else wanted[part],
                steps=steps,
            )
        return samples

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
        units = process_units(self.space, points)
        wanted = self._wanted(volume_fraction, len(points))
        logits, _ = self._logits(
            units, latent, shape=shape, seed=seed, first=0, wanted=wanted, steps=steps
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
        return self.denoiser.standard_code(
            x, self.denoiser.process(process_units(self.space, known))
        )

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        config = {
            "denoiser": dict(self.denoiser.config),
            "voxel_size_um": self.voxel_size_um,
            "phase_names": list(self.phase_names),
            "match_fractions": self.match_fractions,
            "steps": self.steps,
        }
        return save_model(
            folder,
            name=type(self).__name__,
            config=config,
            state=self.denoiser.state_dict(),
            card=card,
            half=half,
        )

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path) -> "ConditionalDiffusion":
        """Load a saved model, or shipped weights by name.

        Raises:
            CheckpointError: No such model, or its files were altered.
        """
        config, state = load_model(resolve_model(folder_or_name, SHIPPED), name=cls.__name__)
        denoiser = build_denoiser(config["denoiser"])
        denoiser.load_state_dict(state)
        return cls(
            denoiser,
            space=ProcessSpace.from_json(config["denoiser"]["space"]),
            voxel_size_um=config["voxel_size_um"],
            periodic=config["denoiser"]["periodic"],
            phase_names=config["phase_names"],
            match_fractions=config["match_fractions"],
            steps=config["steps"],
        )

    @torch.no_grad()
    def _sample_chunk(
        self,
        points: Sequence[Process],
        units: Tensor,
        codes: Tensor,
        *,
        shape: Sequence[int],
        seed: int,
        first: int,
        wanted: Tensor | None,
        steps: int | None,
    ) -> list[Microstructure]:
        logits, fractions = self._logits(
            units, codes, shape=shape, seed=seed, first=first, wanted=wanted, steps=steps
        )
        labels = logits.argmax(1) if fractions is None else cut_exactly(logits, fractions)
        return [
            Microstructure(
                phases=label.to(torch.uint8).numpy(),
                voxel_size_um=self.voxel_size_um,
                periodic=self.periodic,
                process=dict(point),
                phase_names=self.phase_names,
            )
            for label, point in zip(labels, points, strict=True)
        ]

    def _logits(
        self,
        units: Tensor,
        codes: Tensor,
        *,
        shape: Sequence[int],
        seed: int,
        first: int,
        wanted: Tensor | None,
        steps: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        steps = self.steps if steps is None else steps
        if not 2 <= steps <= MOST_STEPS:
            raise DataError(f"expected 2 to {MOST_STEPS} steps, got {steps}")
        self._check_shape(shape)
        condition = self.denoiser.condition(self.denoiser.process(units), codes)
        size = (len(self.phase_names), *shape)
        generators = [generator_for(seed, "sample", first + k) for k in range(len(units))]
        if wanted is None and self.match_fractions:
            wanted = self._draw_fractions(condition.detach(), generators)
        noise = torch.stack([torch.randn(size, generator=g) for g in generators])
        logits = sample_logits(self.denoiser, noise, condition, steps=steps, fractions=wanted)
        return logits, wanted

    def _draw_fractions(self, condition: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        mean, log_spread = self.denoiser.fractions(condition)
        draws = torch.stack([torch.randn(mean.shape[1], generator=g) for g in generators])
        # Deviations that sum to zero and keep unit variance per phase.
        phases = mean.shape[1]
        draws = (draws - draws.mean(1, keepdim=True)) * (phases / max(phases - 1, 1)) ** 0.5
        fractions = (mean + log_spread.exp() * draws).clamp(0, 1).double()
        return fractions / fractions.sum(1, keepdim=True)

    def _wanted(self, volume_fraction: float | Sequence[float] | None, n: int) -> Tensor | None:
        if volume_fraction is None:
            return None
        return check_fractions(volume_fraction, len(self.phase_names)).expand(n, -1)

    def _codes(self, latent: Any, n: int, seed: int) -> Tensor:
        if latent is None:
            draws = [
                torch.randn(self.latent_dim, generator=generator_for(seed, "code", k))
                for k in range(n)
            ]
            return torch.stack(draws)
        codes = torch.as_tensor(latent, dtype=torch.float32)
        codes = codes.expand(n, -1) if codes.ndim == 1 else codes
        if codes.shape != (n, self.latent_dim) or not torch.isfinite(codes).all():
            raise DataError(
                f"expected finite codes of shape ({n}, {self.latent_dim}) or "
                f"({self.latent_dim},), got shape {tuple(codes.shape)}"
            )
        return codes

    def _check_shape(self, shape: Sequence[int]) -> None:
        if len(shape) != len(self.periodic) or any(s < 1 or s % self.size_multiple for s in shape):
            raise DataError(
                f"expected {len(self.periodic)} sides that are multiples of {self.size_multiple}, "
                f"got {tuple(shape)}"
            )


def build_denoiser(config: Mapping[str, Any]) -> PhaseDenoiser:
    """Build the net of a saved config."""
    return PhaseDenoiser(**{**config, "space": ProcessSpace.from_json(config["space"])})


def _product(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= int(side)
    return total

"""Training a micrograph renderer on structures that have a grey channel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from generators.augmentation import augment
from generators.micrograph import Acquisitions, MicrographRenderer
from generators.micrograph_net import MicrographDenoiser
from generators.phase_net import signed_indicators
from microstructures import DataError, MicrostructureDataset
from microstructures.micrographs import GREY
from microstructures.seeds import derive_seed
from networks.training import Progress, TrainingSettings, train

# Log-normal noise levels around what decides texture and edges (Karras et al. 2022, whose data has
# half our deviation).
MEAN_LOG_SIGMA, SPREAD_LOG_SIGMA = -0.5, 1.2


class MicrographSettings(BaseModel):
    """Net and training of a micrograph renderer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 48, 64), min_length=1, description="channels per level"
    )
    blocks: int = Field(default=1, ge=1, description="residual blocks per level")
    features: int = Field(default=96, ge=8, description="length of the condition vector")
    crop: int | None = Field(
        default=None,
        ge=8,
        description="voxels per side of the windows drawn; whole samples if null",
    )
    isotropic: bool = Field(default=False, description="augment by exchanging the axes")
    flips: bool | tuple[bool, ...] = Field(
        default=False,
        description="augment by mirroring the axes: all, none, or one flag per axis; a detector "
        "to one side shades edges, which mirroring would undo",
    )
    steps: int = Field(default=16, ge=4, le=64, description="net evaluations per picture")
    half: bool = Field(default=False, description="store the weights in half precision")
    training: TrainingSettings = TrainingSettings(steps=2000, batch_size=16)


def train_micrographs(
    dataset: MicrostructureDataset,
    settings: MicrographSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> MicrographRenderer:
    """Train a renderer and save it in `out`; repeat the call to resume after an interruption.

    The loss is that of Karras et al. (2022). Grey is standardised by the mean and deviation of all
    samples of its source, so that crops of one picture share its tone.

    Raises:
        DataError: The dataset has no 8-bit channel "grey", or its cells do not fit the net.
        ConvergenceError: Training diverged.
    """
    grey = _grey_of(dataset)
    crop = settings.crop
    if crop is not None and crop > min(dataset.shape):
        raise DataError(f"expected a crop within samples of {dataset.shape}, got {crop}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.training.seed, "weights"))
        net = MicrographDenoiser(
            space=dataset.space,
            n_phases=dataset.n_phases,
            periodic=dataset.periodic if crop is None else [False] * len(dataset.shape),
            widths=settings.widths,
            blocks=settings.blocks,
            features=settings.features,
        )
    shape = dataset.shape if crop is None else (crop,) * len(dataset.shape)
    if any(s % net.size_multiple for s in shape):
        raise DataError(
            f"expected cells whose sides are multiples of {net.size_multiple}, got {shape}; use "
            "fewer widths or another crop"
        )
    acquisitions, picture_of = _acquisitions(dataset, grey)
    objective = GreyObjective(net)
    out = Path(out)
    state = train(
        objective,
        GreyDraw(dataset, grey, acquisitions.tones[picture_of], settings),
        n_samples=len(dataset),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={"settings": settings.model_dump(), "data": dataset.digest},
        progress=progress,
    )
    objective.load_state_dict(state)
    renderer = MicrographRenderer(
        net,
        space=dataset.space,
        voxel_size_um=dataset.voxel_size_um,
        phase_names=dataset.phase_names,
        acquisitions=acquisitions,
        steps=settings.steps,
    )
    renderer.save_pretrained(out, card=card, half=settings.half)
    return renderer


class GreyDraw:
    """Draw augmented pairs of phases and standardised grey, noise levels and noise."""

    def __init__(
        self,
        dataset: MicrostructureDataset,
        grey: Tensor,
        tones: Float[Tensor, "n 2"],
        settings: MicrographSettings,
    ) -> None:
        self.phases, self.units = dataset.phases, dataset.process_units
        self.n_phases, self.periodic = dataset.n_phases, dataset.periodic
        self.grey, self.tones, self.settings = grey, tones, settings

    def __call__(self, batch: Tensor, generator: torch.Generator) -> list[Tensor]:
        phases, grey = self._moved([self.phases[batch], self.grey[batch]], generator)
        tones = self.tones[batch]
        column = [-1, *[1] * (grey.ndim - 1)]
        clean = (grey.float() - tones[:, 0].view(column)) / tones[:, 1].view(column)
        n = len(batch)
        strata = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
        normal = torch.special.ndtri(strata.clamp(1e-4, 1 - 1e-4))
        sigma = (MEAN_LOG_SIGMA + SPREAD_LOG_SIGMA * normal).exp()
        noise = torch.randn(clean[:, None].shape, generator=generator)
        indicators = signed_indicators(phases, self.n_phases)
        return [clean[:, None], indicators, self.units[batch], tones, sigma, noise]

    def _moved(self, images: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Shift, crop, mirror and turn phases and grey alike."""
        start, moved = generator.get_state(), []
        for image in images:
            generator.set_state(start)
            moved.append(
                augment(
                    self._cropped(image, generator),
                    periodic=self.periodic,
                    isotropic=self.settings.isotropic,
                    flips=self.settings.flips,
                    generator=generator,
                )
            )
        return moved

    def _cropped(self, image: Tensor, generator: torch.Generator) -> Tensor:
        crop = self.settings.crop
        if crop is None:
            return image
        corners = torch.rand(image.shape[0], image.ndim - 1, generator=generator)
        windows = []
        for sample, corner in zip(image, corners.tolist(), strict=True):
            for axis, share in enumerate(corner):
                sample = sample.narrow(axis, int(share * (sample.shape[axis] - crop + 1)), crop)
            windows.append(sample)
        return torch.stack(windows)


class GreyObjective(nn.Module):
    """Squared error of the U-Net's own output, whose target has unit variance at every level."""

    def __init__(self, net: MicrographDenoiser) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        clean: Tensor,
        indicators: Tensor,
        units: Tensor,
        tones: Tensor,
        sigma: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        column = sigma.view(-1, *[1] * (clean.ndim - 1))
        noisy = clean + column * noise
        raw = self.net.raw(noisy, sigma, indicators, self.net.condition(units, tones))
        # (D - c_skip x) / c_out of the clean image, with c_skip = 1 / (1 + sigma^2).
        target = (clean * column.square() - column * noise) / (column * (1 + column**2).sqrt())
        error = (raw - target).square().mean()
        return error, {"error": error.detach()}


def _grey_of(dataset: MicrostructureDataset) -> Tensor:
    """Return the grey channel of all samples.

    Raises:
        DataError: There is none, or it is not 8-bit.
    """
    first = dataset[0].channels.get(GREY)
    if first is None or first.dtype != np.uint8 or first.shape != dataset.shape:
        raise DataError(
            f"expected samples with an 8-bit channel {GREY!r}, got "
            f"{', '.join(sorted(dataset[0].channels)) or 'none'}; import the maps with micrographs"
        )
    return torch.from_numpy(np.stack([dataset[k].channels[GREY] for k in range(len(dataset))]))


def _acquisitions(dataset: MicrostructureDataset, grey: Tensor) -> tuple[Acquisitions, Tensor]:
    """Return process and tone of every source, and the source of every sample.

    Raises:
        DataError: A picture is of one grey value.
    """
    names = sorted(set(dataset.sources))
    index = {name: k for k, name in enumerate(names)}
    picture_of = torch.tensor([index[name] for name in dataset.sources])
    units, tones = [], []
    for k, name in enumerate(names):
        rows = torch.nonzero(picture_of == k).flatten()
        values = grey[rows].double()
        if float(values.std()) <= 0:
            raise DataError(f"expected a micrograph with contrast, {name} is of one grey value")
        units.append(dataset.process_units[rows[0]])
        tones.append(torch.stack([values.mean(), values.std()]).float())
    return Acquisitions(torch.stack(units), torch.stack(tones)), picture_of

"""ImageFieldSurrogate: stress fields straight from the image, with cracks and walls, by a net."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics.materials import check_phases
from physics.mechanics.trial_state import unit_loads
from surrogates.familiarity import Familiarity, check_sides
from surrogates.image_field_net import StressNet
from surrogates.image_labels import described
from surrogates.plastic_start import cell_problem, imbalance
from surrogates.quantities import Stiffness, local_moduli
from surrogates.saved_nets import SavedNet, load_net, save_net
from surrogates.stress_errors import von_mises_stress

CHUNK_VOXELS = 2**16  # voxels predicted at once: features stay in the cache


@dataclass(frozen=True)
class ImageFieldPrediction:
    """What an image-to-field surrogate says of some cells; Mandel, GPa, means of voxels.

    `von_mises` is the equivalent stress (2-D: plane strain). `imbalance` is the share of each
    stress field that is not in equilibrium, as the plastic solver measures its residual (None if
    not asked for); the staggered solver's own fields, averaged to voxel centres, have some too.
    `distance` is at most 1 for 95 % of the training cells (see `Familiarity`).
    """

    stress: Float[Tensor, "batch load n *space"]
    von_mises: Float[Tensor, "batch load *space"]
    imbalance: Float[Tensor, "batch load"] | None
    distance: Float[Tensor, " batch"]


class ImageFieldSurrogate:
    """Predict linear elastic stress fields straight from the image: no solver step, no bracket.

    One evaluation of a `StressNet`, trained as a conditional GAN (pix2pix; Isola et al. 2017).
    Pores are phases of modulus 0, so a crack is a thin pore. Walls are made by padding
    (`surrogates.image_cells.padded`): a strip of pore makes both ends of an axis free sides, a
    strip of a stiff phase holds them in grips, and the periodic cell is a specimen.

    Limits: the stress is in equilibrium only approximately, so there is no certificate:
    `imbalance` and `distance` are all that tells a bad answer. It is linear in the load, exact for
    a homogeneous cell and zero in pores by construction. Sides must be multiples of
    `net.size_multiple`, at least 16. The model's card says which contrasts, cracks and walls it
    has learnt, and that the solver stopped early may cost less.

    >>> model = ImageFieldSurrogate.from_pretrained("stress-2d-pix2pix")  # doctest: +SKIP
    >>> bar = padded(phases, axis=1, width=16, label=2)  # doctest: +SKIP
    >>> model.predict(bar[None], [soft, stiff, pore]).von_mises[0, 0]  # doctest: +SKIP
    """

    def __init__(self, net: StressNet, familiarity: Familiarity) -> None:
        layout = torch.channels_last if net.dim == 2 else torch.channels_last_3d
        self.net = (
            net.eval()
            .requires_grad_(False)
            .to(
                memory_format=layout  # pyright: ignore[reportCallIssue]
            )
        )
        self.familiarity = familiarity

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells of a shape that `predict` cannot take.

        Raises:
            DataError: The dimension differs, or a side is too short or no proper multiple.
        """
        self.net.check_shape(shape)
        check_sides(shape)

    @torch.no_grad()
    def predict(
        self,
        phases: Shaped[Tensor, "batch *dims"],
        materials: Sequence,
        macro_strain: Float[Tensor, "batch load n"] | None = None,
        *,
        check: bool = True,
    ) -> ImageFieldPrediction:
        """Predict the stress of cells under macroscopic strains.

        Args:
            phases: Labels `(batch, *space)`, or fractions `(batch, phase, *space)` mixed by
                Voigt's rule.
            materials: One `IsotropicElastic` per phase; modulus 0 is a pore.
            macro_strain: Mandel; all unit loads when None.
            check: Also measure the imbalance of the stress fields.

        Raises:
            DataError: Phases, materials or strains do not fit, or a cell is all pore.
            ConvergenceError: The net's answer is not finite.
        """
        shape = check_phases(phases, len(materials))
        self.check_shape(shape)
        values = Stiffness().phase_moduli(materials, len(shape)).unsqueeze(0)
        macro = _checked_strain(macro_strain, len(phases), self.net.n)
        size = max(1, CHUNK_VOXELS // phases[0].numel())
        found = [
            self._predict(local_moduli(part, values), strain, check)
            for part, strain in zip(phases.split(size), macro.split(size), strict=True)
        ]
        return _joined(found)

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        saved = SavedNet(self.net, self.familiarity, {})
        return save_net(folder, saved, name=type(self).__name__, card=card, half=half)

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path) -> "ImageFieldSurrogate":
        """Load a saved model, or shipped weights by name.

        Raises:
            CheckpointError: No such model, or its files were altered.
        """
        saved = load_net(folder_or_name, lambda config: StressNet(**config), name=cls.__name__)
        return cls(saved.net, saved.familiarity)

    def _predict(self, moduli: Tensor, macro: Tensor, check: bool) -> ImageFieldPrediction:
        _check_solid(moduli)
        # Float32 has the range of materials in GPa, but not of any unit that a caller may think in.
        unit = moduli.flatten(1).amax(1)
        moduli = (moduli / unit.view(-1, *[1] * (moduli.ndim - 1))).float()
        unit_stress = self.net(moduli)
        scaled = macro.float() * unit.view(-1, 1, 1).float()
        stress = torch.einsum("blk,bkn...->bln...", scaled, unit_stress)
        if not torch.isfinite(stress).all():
            raise ConvergenceError(
                "expected finite stresses from the surrogate, got NaN or infinity; use "
                "solve_elasticity for these materials"
            )
        return ImageFieldPrediction(
            stress=stress,
            von_mises=von_mises_stress(stress, poisson_field(moduli)),
            imbalance=imbalance(cell_problem(moduli), stress) if check else None,
            distance=self.familiarity(described(moduli)),
        )


def poisson_field(moduli: Float[Tensor, "batch 2 *space"]) -> Float[Tensor, "batch *space"]:
    """Return Poisson's ratio of bulk (2-D: plane strain) and shear moduli, 0 in pores."""
    bulk, shear = moduli.unbind(1)
    if moduli.ndim == 4:
        ratio = (bulk - shear) / (2 * bulk)
    else:
        ratio = (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear))
    return torch.where(shear > 0, ratio, 0.0)


def _checked_strain(
    macro: Float[Tensor, "batch load n"] | None, batch: int, n: int
) -> Float[Tensor, "batch load n"]:
    if macro is None:
        return unit_loads(batch, n, torch.device("cpu"))
    if macro.ndim != 3 or macro.shape[0] != batch or macro.shape[2] != n:
        raise DataError(
            f"macro_strain: expected shape ({batch}, load, {n}), got {tuple(macro.shape)}; give "
            "Mandel strains for every cell"
        )
    if not torch.isfinite(macro).all():
        raise DataError("macro_strain: expected finite strains, got NaN or infinity")
    return macro


def _check_solid(moduli: Tensor) -> None:
    empty = (moduli[:, 1].flatten(1).amax(1) <= 0).nonzero()
    if len(empty):
        raise DataError(
            f"phases: expected some solid in every cell, got only pores in cell "
            f"{int(empty[0])} of its batch; leave it out"
        )


def _joined(parts: Sequence[ImageFieldPrediction]) -> ImageFieldPrediction:
    shares = [part.imbalance for part in parts if part.imbalance is not None]
    return ImageFieldPrediction(
        stress=torch.cat([part.stress for part in parts]),
        von_mises=torch.cat([part.von_mises for part in parts]),
        imbalance=torch.cat(shares) if shares else None,
        distance=torch.cat([part.distance for part in parts]),
    )

"""PlasticSurrogate: stress fields and the stress-strain curve of elastic-plastic cells by a net."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import ConvergenceError, DataError
from physics.mechanics.hardening import ElasticPlastic
from physics.mechanics.loading_path import LoadingPath
from physics.mechanics.materials import check_phases
from physics.mechanics.radial_return import in_plane
from surrogates.familiarity import Familiarity, check_sides
from surrogates.plastic_cells import (
    PlasticCells,
    PlasticUnits,
    check_labels,
    phase_table,
    proportional_parts,
    scaled_moduli,
    voxel_moduli,
)
from surrogates.plastic_labels import described
from surrogates.plastic_net import PathNet
from surrogates.plastic_start import SecantStart, cell_problem, imbalance
from surrogates.saved_nets import SavedNet, load_net, save_net

CHUNK_VOXELS = 2**15  # voxels predicted at once: fields stay in the cache


@dataclass(frozen=True)
class PlasticPrediction:
    """What a path surrogate says of some cells; Mandel, strain dimensionless, GPa.

    As in `PlasticResponse`, but with the fields of every step: `stress` is whole, m = 4 components
    (11, 22, 33, √2·12) in 2-D; `mean_stress` is the mean of its in-plane part, `mean_strain` the
    mean of `strain`. `modulus` is the slope of the driven stress over the driven strain before
    yield, by the elastic iterations. `imbalance` is the share of each stress field that is not in
    equilibrium, as the solver measures its residual (None if not asked for). `distance` is at most
    1 for 95 % of the training cells and grows with unlikeness (see `Familiarity`); a load beyond
    the trained one adds log2 of their ratio.
    """

    strain: Float[Tensor, "batch step n *space"]
    stress: Float[Tensor, "batch step m *space"]
    equivalent_plastic_strain: Float[Tensor, "batch step *space"]
    mean_strain: Float[Tensor, "batch step n"]
    mean_stress: Float[Tensor, "batch step n"]
    mean_stress_33: Float[Tensor, "batch step"]
    modulus: Float[Tensor, " batch"]
    imbalance: Float[Tensor, "batch step"] | None
    distance: Float[Tensor, " batch"]


class PlasticSurrogate:
    """Predict stress fields and mean curves of periodic cells along a proportional test.

    `solve_plasticity`'s answer (its default scheme) without its Newton iterations: a few secant
    iterations at the largest load, one evaluation of a `PathNet`, and the radial return of its
    strain.

    Limits: phases with straight hardening curves that all yield; tests of as many steps as the
    net was trained for, all targets along one direction (unloading and reversal included), mean
    stresses zero where strains are not driven; sides that are multiples of 8 for the shipped
    weights, at least 16. The stress obeys each voxel's yield curve but only approximately the
    equilibrium between voxels, and there is no bracket: `imbalance` and `distance` are what tells
    a bad answer.

    >>> model = PlasticSurrogate.from_pretrained("plastic-2d-unet")  # doctest: +SKIP
    >>> test = LoadingPath.uniaxial(strain=0.01, steps=8, dim=2)  # doctest: +SKIP
    >>> model.predict(phases, [soft, hard], test).mean_stress[0, :, 0]  # doctest: +SKIP
    """

    def __init__(
        self, net: PathNet, familiarity: Familiarity, *, start: SecantStart, amplitude: float
    ) -> None:
        layout = torch.channels_last if net.dim == 2 else torch.channels_last_3d
        self.net = (
            net.eval()
            .requires_grad_(False)
            .to(
                memory_format=layout  # pyright: ignore[reportCallIssue]
            )
        )
        self.familiarity = familiarity
        self.start, self.amplitude = start, amplitude

    @property
    def steps(self) -> int:
        """Steps that a test must have."""
        return self.net.steps

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells of a shape that `predict` cannot take, before anything is computed.

        Raises:
            DataError: The dimension differs, or a side is too short or no proper multiple.
        """
        self.net.check_shape(shape)
        check_sides(shape)

    @torch.no_grad()
    def predict(
        self,
        phases: Shaped[Tensor, "batch *space"],
        materials: Sequence[ElasticPlastic],
        path: LoadingPath,
        *,
        check: bool = True,
        corrected: bool = True,
    ) -> PlasticPrediction:
        """Predict the fields of cells after every step of a test.

        Args:
            phases: Labels `(batch, *space)`.
            materials: One per phase, with `LinearHardening`.
            path: Of as many steps as `steps`, along one direction.
            check: Also measure the imbalance of the stress fields.
            corrected: Ask the net; else the answer is that of its start and the law alone.

        Raises:
            DataError: Phases, materials or path do not fit.
            ConvergenceError: The net's answer is not finite.
        """
        table = phase_table(materials)
        check_phases(phases, len(materials))
        check_labels(phases, len(materials))
        self.check_shape(phases.shape[1:])
        self._check_path(path)
        target, multipliers = proportional_parts(path, len(phases))
        moduli, units = scaled_moduli(voxel_moduli(phases, table.expand(len(phases), *table.shape)))
        moduli, target = moduli.float(), (target / units.strain.view(-1, 1)).float()
        size = max(1, CHUNK_VOXELS // moduli[0, 0].numel())
        driven, parts = path.strain_driven[0], []
        for start in range(0, len(phases), size):
            part = slice(start, start + size)
            cells = PlasticCells(
                moduli[part],
                *self.start.strains(moduli[part], target[part], driven),
                target[part],
                driven.expand_as(target[part]),
                multipliers[part].float(),
            )
            own = PlasticUnits(units.stress[part].float(), units.modulus[part].float())
            parts.append(self._predicted(cells, own, check, corrected))
        names = [entry.name for entry in fields(PlasticPrediction)]
        joined = {name: [getattr(part, name) for part in parts] for name in names}
        whole = {k: torch.cat(v) if v[0] is not None else None for k, v in joined.items()}
        found = PlasticPrediction(**whole)  # pyright: ignore[reportArgumentType]
        if not torch.isfinite(found.mean_stress).all():
            raise ConvergenceError(
                "expected finite stresses from the surrogate, got NaN or infinity; use "
                "solve_plasticity for these materials"
            )
        return found

    def save_pretrained(self, folder: str | Path, *, card: str = "", half: bool = False) -> Path:
        """Save config, weights and card as a hashed folder."""
        saved = SavedNet(
            self.net, self.familiarity, {"start": asdict(self.start), "amplitude": self.amplitude}
        )
        return save_net(folder, saved, name=type(self).__name__, card=card, half=half)

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path) -> "PlasticSurrogate":
        """Load a saved model, or shipped weights by name.

        Raises:
            CheckpointError: No such model, or its files were altered.
        """
        saved = load_net(folder_or_name, lambda config: PathNet(**config), name=cls.__name__)
        return cls(
            saved.net,
            saved.familiarity,
            start=SecantStart(**saved.config["start"]),
            amplitude=saved.config["amplitude"],
        )

    def _predicted(
        self, cells: PlasticCells, units: PlasticUnits, check: bool, corrected: bool
    ) -> PlasticPrediction:
        answer = self.net(cells, corrected=corrected)
        dim = cells.dim
        stress, strain = answer.stress(), answer.strain(cells.moduli[:, 0])
        problem = cell_problem(cells.moduli)
        mean_stress, mean_strain = stress.flatten(3).mean(3), strain.flatten(3).mean(3)
        unit, unit_strain = units.stress.view(-1, 1, 1), units.strain.view(-1, 1, 1)
        wide = [1] * (dim + 1)
        shape = in_plane(stress)
        return PlasticPrediction(
            strain=strain * unit_strain.view(-1, 1, *wide),
            stress=stress * unit.view(-1, 1, *wide),
            equivalent_plastic_strain=answer.plastic * unit_strain.view(-1, 1, *wide[1:]),
            mean_strain=mean_strain * unit_strain,
            mean_stress=in_plane(mean_stress[..., None])[..., 0] * unit,
            mean_stress_33=mean_stress[:, :, 2] * unit[:, :, 0],
            modulus=_modulus(cells) * units.modulus,
            imbalance=imbalance(problem, shape) if check else None,
            distance=self._distance(cells),
        )

    def _distance(self, cells: PlasticCells) -> Float[Tensor, " batch"]:
        onset = (cells.moduli[:, 2] / (3 * cells.moduli[:, 1])).flatten(1).mean(1)
        beyond = cells.target.norm(dim=1) / (self.amplitude * onset)
        return self.familiarity(described(cells.moduli)) + beyond.clamp_min(1).log2()

    def _check_path(self, path: LoadingPath) -> None:
        if path.components != self.net.n or path.steps != self.steps:
            raise DataError(
                f"path: expected {self.steps} steps of {self.net.n} components, as the surrogate "
                f"was trained on, got {path.steps} of {path.components}; place the steps where "
                "the curve is wanted, or use solve_plasticity"
            )


def _modulus(cells: PlasticCells) -> Float[Tensor, " batch"]:
    """Return the elastic work's slope: mean stress along the driven strain over its size."""
    shear, bulk, dim = cells.moduli[:, 1], cells.moduli[:, 0], cells.dim
    trace = cells.elastic[:, :dim].sum(1)
    stress = 2 * shear.unsqueeze(1) * cells.elastic
    stress[:, :dim] += ((bulk - 2 / 3 * shear) * trace).unsqueeze(1)
    driven = cells.target * cells.driven
    return (stress.flatten(2).mean(2) * driven).sum(1) / driven.square().sum(1)

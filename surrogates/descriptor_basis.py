"""Descriptors of specimens as the rows of a regression: principal components and inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from surrogates.crop_descriptors import CropDescriptors
from surrogates.specimens import Specimens

LEADING = 4  # components of each kind of which products are taken
REDUCED = ("correlations", "features")


@dataclass(frozen=True)
class DescriptorBasis:
    """Fractions, leading principal components of each kind of descriptor, and inputs.

    Fractions and inputs are standardised over the specimens; the components of a kind are in
    units of the first one's scatter, so that a later one counts as little as it varies.
    """

    descriptors: CropDescriptors
    means: Mapping[str, Float[Tensor, " _"]]
    bases: Mapping[str, Float[Tensor, "_ _"]]
    centre: Float[Tensor, " _"]
    scale: Float[Tensor, " _"]

    @classmethod
    def fit(
        cls, descriptors: CropDescriptors, specimens: Specimens, components: int
    ) -> "DescriptorBasis":
        """Fit to the means over each specimen's crops."""
        raw = descriptors.of_crops(specimens.phases)
        known = {kind: specimens.mean(values) for kind, values in raw.items()}
        means, bases = {}, {}
        for kind in REDUCED:
            if kind in known:
                means[kind] = known[kind].mean(0)
                _, _, basis = torch.linalg.svd(known[kind] - means[kind], full_matrices=False)
                bases[kind] = basis[: min(components, len(specimens) - 1)].contiguous()
        plain = cls(descriptors, means, bases, torch.zeros(1), torch.ones(1))
        rows = plain._rows(known, specimens.inputs)
        scale, groups = rows.std(0).clamp_min(1e-9), plain.groups(specimens.inputs.shape[1])
        for place in range(1, 1 + len(REDUCED)):
            own = (groups == place).nonzero().flatten()
            if len(own):
                scale[own] = float(scale[own[0]])
        return cls(descriptors, means, bases, rows.mean(0), scale)

    def rows(self, specimens: Specimens) -> Float[Tensor, "specimen entry"]:
        """Return one row per specimen, of the means over its crops."""
        raw = self.descriptors.of_crops(specimens.phases)
        known = {kind: specimens.mean(values) for kind, values in raw.items()}
        return self._scaled(self._rows(known, specimens.inputs))

    def crop_rows(self, specimens: Specimens) -> Float[Tensor, "crop entry"]:
        """Return one row per crop, with the inputs of its specimen."""
        raw = self.descriptors.of_crops(specimens.phases)
        return self._scaled(self._rows(raw, specimens.inputs[specimens.owner]))

    def inputs(self, rows: Float[Tensor, "row entry"]) -> Float[Tensor, "row input"]:
        """Return the standardised inputs among the entries of rows."""
        return rows[:, len(self.groups(0)) :]

    def groups(self, inputs: int) -> Int[Tensor, " entry"]:
        """Return what each entry is: 0 a fraction, 1 and 2 components, 3, 4, ... each input."""
        counts = [self.descriptors.n_phases - 1] + [
            len(self.bases[kind]) if kind in self.bases else 0 for kind in REDUCED
        ]
        first = [torch.full((count,), k) for k, count in enumerate(counts)]
        return torch.cat([*first, torch.arange(inputs) + len(counts)])

    def with_products(self, rows: Float[Tensor, "row entry"]) -> Float[Tensor, "row design"]:
        """Return rows with all products of fractions, leading components and inputs."""
        groups = self.groups(self.inputs(rows).shape[1])
        chosen = []
        for group in groups.unique().tolist():
            own = (groups == group).nonzero().flatten()
            chosen.append(own[:LEADING] if group in range(1, 1 + len(REDUCED)) else own)
        first = rows[:, torch.cat(chosen)]
        one, other = torch.tril_indices(first.shape[1], first.shape[1]).unbind(0)
        return torch.cat([rows, first[:, one] * first[:, other]], 1)

    def state(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        parts = {"mean": self.means, "basis": self.bases}
        state = {f"{part}.{kind}": v for part, of in parts.items() for kind, v in of.items()}
        return {**state, "centre": self.centre, "scale": self.scale}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> "DescriptorBasis":
        """Return the basis of a saved model."""
        kinds = [kind for kind in REDUCED if f"mean.{kind}" in state]
        return cls(
            CropDescriptors.from_config(config),
            {kind: state[f"mean.{kind}"] for kind in kinds},
            {kind: state[f"basis.{kind}"] for kind in kinds},
            state["centre"],
            state["scale"],
        )

    @property
    def config(self) -> dict[str, Any]:
        """What the descriptors are made from, as plain data."""
        return {f.name: getattr(self.descriptors, f.name) for f in fields(self.descriptors)}

    def _rows(self, known: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        scores = [(known[k] - self.means[k]) @ self.bases[k].mT for k in REDUCED if k in self.bases]
        return torch.cat([known["fractions"], *scores, inputs], 1)

    def _scaled(self, rows: Tensor) -> Tensor:
        return (rows - self.centre) / self.scale

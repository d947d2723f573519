"""A network of many grains in few fields: colouring, tracking, recolouring."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics.processes.curvature_flow import STEP, curvature_flow

# Grains of one colour stay farther apart than APART voxels, several times an interface's width;
# the map is scanned at every other voxel.
STRIDE, APART = 2, 8
STEPS_BETWEEN_CHECKS = 3


@dataclass
class GrainNetwork:
    """Grains on a periodic grid that evolve by curvature and keep their identity.

    Grains of one colour share one field (Krill and Chen 2002, doi:10.1016/S1359-6454(02)00084-8).
    They never touch: when two come near, the smaller one moves to a colour that is free around
    it, so like-coloured grains do not coalesce.

    Args:
        ids: Grain of each voxel.
        colours: Field of each grain.
        fields: Soft indicators of the colours; their sum is 1.
    """

    ids: Int[Tensor, "*space"]
    colours: Int[Tensor, " grain"]
    fields: Float[Tensor, "colour *space"]

    @classmethod
    def of(
        cls, ids: Int[Tensor, "*space"], *, dtype: torch.dtype = torch.float32
    ) -> "GrainNetwork":
        """Return the network of a map of grains 0, 1, ..., coloured greedily."""
        colours = _greedy_colours(ids)
        shades = torch.arange(int(colours.max()) + 1).view(-1, *[1] * ids.ndim)
        return cls(ids.long().clone(), colours, (colours[ids] == shades).to(dtype))

    def advance(self, time: float | int) -> None:
        """Let the boundaries move with v = kappa for a time in voxel^2."""
        at_once = STEPS_BETWEEN_CHECKS * STEP
        while time > 0 and len(self.fields) > 1:
            self.fields = curvature_flow(self.fields, time=min(time, at_once))
            time -= at_once
            self._track()
            self._recolour()

    def _track(self) -> None:
        """Give voxels that changed colour the id of the next grain of that colour."""
        own = self.colours[self.ids]
        # Only where a grain has lost its majority may another one lead.
        doubtful = (self.fields.gather(0, own.unsqueeze(0))[0] < 0.5).nonzero()
        leading = self.fields[(slice(None), *doubtful.T)].argmax(0)
        changed = leading != own[tuple(doubtful.T)]
        moved, leading = doubtful[changed], leading[changed]
        while len(moved):
            found = torch.full((len(moved),), -1)
            for offset in itertools.product((0, -1, 1), repeat=self.ids.ndim):
                place = (moved + torch.tensor(offset)) % torch.tensor(self.ids.shape)
                grain = self.ids[tuple(place.T)]
                found = torch.where((self.colours[grain] == leading) & (found < 0), grain, found)
            if (found < 0).all():
                self._keep(moved)
                return
            self.ids[tuple(moved[found >= 0].T)] = found[found >= 0]
            moved, leading = moved[found < 0], leading[found < 0]

    def _keep(self, voxels: Tensor) -> None:
        """Give voxels whose colour belongs to no grain nearby back to the grain they had."""
        index = tuple(voxels.T)
        self.fields[(slice(None), *index)] = 0
        self.fields[(self.colours[self.ids[index]], *index)] = 1

    def _recolour(self) -> None:
        """Part like-coloured grains that came near, and drop colours without grains."""
        sizes = torch.bincount(self.ids.flatten(), minlength=len(self.colours))
        for pair in _near_pairs(self.ids, self.colours).tolist():
            if self.colours[pair[0]] == self.colours[pair[1]]:
                self._move(min(pair, key=lambda grain: int(sizes[grain])))
        present = self.colours[sizes > 0].unique()
        if len(present) < len(self.fields):
            compact = torch.zeros(len(self.fields), dtype=torch.int64)
            compact[present] = torch.arange(len(present))
            self.colours, self.fields = compact[self.colours], self.fields[present]

    def _move(self, grain: int) -> None:
        """Give a grain a colour that is free around it, a further field if there is none."""
        mine = self.ids == grain
        old = int(self.colours[grain])
        taken = set(self.colours[self.ids[_dilated(mine, APART)].unique()].tolist())
        new = next(c for c in itertools.count() if c not in taken)
        if new == len(self.fields):
            self.fields = torch.cat([self.fields, torch.zeros_like(self.fields[:1])])
        region = _dilated(mine, APART // 2)
        self.fields[new] += torch.where(region, self.fields[old], 0.0)
        self.fields[old].masked_fill_(region, 0.0)
        self.colours[grain] = new


def _near_pairs(ids: Tensor, colours: Tensor | None = None) -> Tensor:
    """Return pairs `(pair, 2)` of grains within APART voxels; of like colours if given."""
    coarse = ids[(slice(None, None, STRIDE),) * ids.ndim].to(torch.int32)
    shades = coarse if colours is None else colours.to(torch.int32)[coarse]
    axes, found = tuple(range(ids.ndim)), []
    for offset in _half_ball(APART // STRIDE, ids.ndim):
        other = coarse.roll(offset, dims=axes)
        near = coarse != other
        if colours is not None:
            near &= shades == shades.roll(offset, dims=axes)
        found.append(torch.stack([coarse[near], other[near]], dim=1))
    return torch.cat(found).long().unique(dim=0)


def _half_ball(radius: int, axes: int) -> Iterator[tuple[int, ...]]:
    """Yield one of each pair of opposite lattice vectors no longer than the radius."""
    for offset in itertools.product(range(-radius, radius + 1), repeat=axes):
        if offset > (0,) * axes and sum(i * i for i in offset) <= radius**2:
            yield offset


def _dilated(mask: Tensor, reach: int) -> Tensor:
    """Return the voxels within `reach` of the mask along every axis (a box), periodic."""
    for axis in range(mask.ndim):
        done = 0
        while done < reach:
            shift = min(2 * done + 1, reach - done)
            mask = mask | mask.roll(shift, dims=axis) | mask.roll(-shift, dims=axis)
            done += shift
    return mask


def _greedy_colours(ids: Tensor) -> Tensor:
    """Return a colour for each grain that no grain nearby has, most crowded grains first."""
    n_grains = int(ids.max()) + 1
    near: list[set[int]] = [set() for _ in range(n_grains)]
    for a, b in _near_pairs(ids).tolist():
        near[a].add(b)
        near[b].add(a)
    colours = [-1] * n_grains
    for grain in sorted(range(n_grains), key=lambda g: -len(near[g])):
        taken = {colours[other] for other in near[grain]}
        colours[grain] = next(c for c in itertools.count() if c not in taken)
    return torch.tensor(colours)

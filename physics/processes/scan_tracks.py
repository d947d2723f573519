"""Tracks of a scanned laser: what their melt pools reach, layer after layer."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from physics.processes.melt_pool import MeltPool

# Heat flow flatter than this slope, sideways over upwards, is taken to be this flat.
FLATTEST = 1.0
# Least size of a fluctuating pool, relative to its mean.
SMALLEST_POOL = 0.2
# Log-normal spread of keyhole pores over their mean radius.
PORE_SPREAD = 1 / 3
# Reach of the track that a cross-section looks for pores, in mean pore radii to either side.
PORE_REACH = 4.0


@dataclass(frozen=True)
class Block:
    """Voxels of a piece of the build: hatch direction, build direction, scan direction.

    Args:
        shape: Voxels along the three axes; one along the last is a cross-section.
        voxel_size_um: Voxel edge.
        section: Whether the last axis is a plane without thickness; else it is periodic.
    """

    shape: tuple[int, int, int]
    voxel_size_um: float
    section: bool

    def centres_um(self, axis: int) -> Float[np.ndarray, " voxel"]:
        """Return the coordinates of the voxel centres along an axis."""
        return self.voxel_size_um * (np.arange(self.shape[axis]) + 0.5)

    @property
    def scan_length_um(self) -> float:
        """Period along the scan."""
        return self.shape[2] * self.voxel_size_um


@dataclass(frozen=True)
class ScanTracks:
    """Tracks that have melted a block of powder.

    Args:
        pool: Mean cross-section of a track.
        tops_um: Height of the surface when each layer is scanned, rising.
        centres_um: Place of each track along the hatch, `(layer, track)`, in order of scanning.
        sizes: Size of the pool over its mean, `(layer, track, scan)`.
    """

    pool: MeltPool
    tops_um: Float[np.ndarray, " layer"]
    centres_um: Float[np.ndarray, "layer track"]
    sizes: Float[np.ndarray, "layer track scan"]

    def melt(self, block: Block) -> tuple[Bool[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]]:
        """Return what has been melted, and the slope of the heat flow when it last was.

        Heat flows from the pool's boundary inwards along its normal; the slope is its part along
        axis 0 over that along axis 1.
        """
        melted, slope = np.zeros(block.shape, dtype=bool), np.zeros(block.shape)
        across, up = block.centres_um(0), block.centres_um(1)
        for top, centres, sizes in zip(self.tops_um, self.centres_um, self.sizes, strict=True):
            deepest = self.pool.depth_um * sizes.max()
            rows = slice(*np.searchsorted(up, [top - deepest, top], side="right"))
            z = (top - up[rows]) / self.pool.depth_um
            for centre, size in zip(centres, sizes, strict=True):
                half = self.pool.width_um / 2
                reach = half * size.max()
                columns = slice(*np.searchsorted(across, [centre - reach, centre + reach]))
                y = (across[columns] - centre) / half
                inside = np.add.outer(y**2, z**2)[..., None] <= size**2
                melted[columns, rows] |= inside
                flat = -np.outer(y / half, self.pool.depth_um / np.maximum(z, 1e-9))
                lean = np.clip(flat, -FLATTEST, FLATTEST)[..., None]
                slope[columns, rows] = np.where(inside, lean, slope[columns, rows])
        return melted, slope

    def bottom_pores(
        self,
        block: Block,
        *,
        per_mm: float,
        radius_um: float,
        generator: torch.Generator,
    ) -> Bool[np.ndarray, "x y z"]:
        """Return spherical pores that rest on the bottoms of the pools, at random along the tracks.

        In a cross-section they appear as the discs in which it cuts them.
        """
        pores = np.zeros(block.shape, dtype=bool)
        length = 2 * PORE_REACH * radius_um if block.section else block.scan_length_um
        expected = 1e-3 * per_mm * length * self.centres_um.size
        random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        count = random.poisson(expected)
        log_spread = math.sqrt(math.log1p(PORE_SPREAD**2))
        radii = radius_um * np.exp(log_spread * random.standard_normal(count) - log_spread**2 / 2)
        tracks = random.integers(self.centres_um.size, size=count)
        places = length * random.random(count)
        for radius, track, place in zip(radii, tracks, places, strict=True):
            layer, index = np.unravel_index(track, self.centres_um.shape)
            along = self._from(place, length, block)
            size = self.sizes[layer, index, int(np.abs(along).argmin())]
            height = self.tops_um[layer] - self.pool.depth_um * size + radius
            y = block.centres_um(0) - self.centres_um[layer, index]
            z = block.centres_um(1) - height
            columns, rows = np.abs(y) <= radius, np.abs(z) <= radius
            square = np.add.outer(np.add.outer(y[columns] ** 2, z[rows] ** 2), along**2)
            pores[np.ix_(columns, rows)] |= square <= radius**2
        return pores

    @staticmethod
    def _from(place: float, length: float, block: Block) -> np.ndarray:
        """Return the distance of each plane along the scan from a place on it."""
        if block.section:
            return np.array([place - length / 2])
        away = block.centres_um(2) - place
        return away - length * np.round(away / length)


def lay_tracks(
    pool: MeltPool,
    block: Block,
    *,
    hatch_um: float,
    layer_um: float,
    shift: float,
    variation: float,
    correlation_um: float,
    generator: torch.Generator,
) -> ScanTracks:
    """Return all tracks that reach into a block cut at random from a large build.

    Args:
        pool: Mean cross-section.
        block: Voxels.
        hatch_um: Distance between tracks.
        layer_um: Thickness of a layer.
        shift: Shift from layer to layer over the hatch.
        variation: Standard deviation of a pool's size over its mean.
        correlation_um: Length over which the size fluctuates along a track.
        generator: Source of all randomness.
    """
    width, height = (block.voxel_size_um * n for n in block.shape[:2])
    largest = 1 + 5 * variation
    layers = math.ceil((height + largest * pool.depth_um) / layer_um) + 1
    margin = math.ceil(largest * pool.width_um / 2 / hatch_um) + 1
    tracks = math.ceil(width / hatch_um) + 2 * margin
    start = torch.rand(2, generator=generator, dtype=torch.float64).numpy()
    tops = layer_um * (start[0] + np.arange(layers))
    first = (start[1] + shift * np.arange(layers)) % 1 - margin
    centres = hatch_um * np.add.outer(first, np.arange(tracks))
    noise = torch.randn(
        layers, tracks, block.shape[2], generator=generator, dtype=torch.float64
    ).numpy()
    sizes = 1 + variation * _smoothed(noise, block.voxel_size_um / correlation_um)
    return ScanTracks(pool, tops, centres, np.maximum(sizes, SMALLEST_POOL))


def _smoothed(noise: np.ndarray, step: float) -> np.ndarray:
    """Return periodic noise of unit variance and covariance exp(-(x/l)^2/2) along the last axis."""
    f = 2 * math.pi * np.fft.rfftfreq(noise.shape[-1])
    amplitude = np.exp(-((f / step) ** 2) / 4)
    whole = np.exp(-((2 * math.pi * np.fft.fftfreq(noise.shape[-1]) / step) ** 2) / 2).mean()
    spectrum = np.fft.rfft(noise, axis=-1) * amplitude / math.sqrt(whole)
    return np.fft.irfft(spectrum, n=noise.shape[-1], axis=-1)

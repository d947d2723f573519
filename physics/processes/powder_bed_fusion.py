"""Laser powder bed fusion: power, speed, hatch and layer → pores and columnar grains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from physics.processes.campaign import Campaign, Parameters
from physics.processes.columnar_growth import columnar_growth, crystal_axes
from physics.processes.melt_pool import Alloy, Beam, MeltPool, melt_pool
from physics.processes.nucleation_growth import first_arrival
from physics.processes.scan_tracks import Block, lay_tracks
from physics.processes.texture import uniform_orientations


@dataclass(frozen=True)
class PowderBedFusion:
    """Simplified model of laser powder bed fusion: melt pools, pores and columnar grains.

    Each track melts half an ellipse, of the width of Eagar and Tsai's isotherm (1983) and the
    depth of that isotherm or of the keyhole (Gan et al. 2021): see `melt_pool`. Its size
    fluctuates along the track. Powder that no track reaches is a lack-of-fusion pore; without
    fluctuation and with tracks stacked there is none if (H/W)^2 + (L/D)^2 <= 1 for hatch H, layer
    L, width W and depth D (Tang, Pistorius and Beuth 2017, doi:10.1016/j.addma.2016.12.001).
    Above a keyhole number, spherical pores stay at the bottom of the pools, the more the further
    above (after King et al. 2014, doi:10.1016/j.jmatprotec.2014.06.005, and Cunningham et al.
    2019, doi:10.1126/science.aav4687). Cubic grains grow epitaxially upwards along the heat flow
    of the last pool at each place and compete by their orientation (`columnar_growth`).

    Axis 0 is the hatch direction, axis 1 the build direction (up with the index), axis 2 the scan
    direction, the same in all layers; a 2-D cell is the cross-section of the tracks. Only axis 2
    is periodic: hatch and layer are process parameters, so cells of given voxels hold no whole
    number of them, and growth has a direction. Phase 0 is solid, phase 1 pore (unmelted powder
    counts as pore). Channels: `grain_ids` (0 in pores) and `orientations` (unit quaternions (w,
    x, y, z), crystal to sample axes; the identity in pores).

    Limits: constants for one alloy and spot size; powers and speeds of `.space`; no rotation of
    layers, no balling, spatter, gas pores or contours; no healing of keyhole pores by the next
    layer; no solid-state transformation (in Ti-6Al-4V the
    grains are those of the prior beta phase). The keyhole constants are set to lie in the range
    of the sources, not fitted: use porosity for trends.

    Args:
        voxel_size_um: Voxel edge.
        alloy: Metal.
        beam_radius_um: 1/e^2 radius of the beam.
        preheat_k: Temperature of the plate.
        pool_variation: Standard deviation of a pool's size over its mean.
        pool_correlation_um: Length along the track over which its size fluctuates.
        layer_shift: Shift of the tracks from layer to layer over the hatch: 0 stacks them, 0.5
            puts them in the gaps of the layer below.
        unstable_keyhole_number: Keyhole number above which pores are left.
        keyhole_pores_per_mm: Pores per length of track at twice that number.
        keyhole_pore_radius_um: Mean radius of those pores, with a log-normal spread of a third.
        first_grain_um: Distance of grains where growth starts; also the depth of metal that a 2-D
            cell stands for.
        stray_grain_um: One fresh grain appears by chance in each cube of this edge.
        lead_in_um: Height grown below the cell and cut off.
    """

    voxel_size_um: float = 5.0
    alloy: Alloy = field(default_factory=Alloy)
    beam_radius_um: float = 50.0
    preheat_k: float = 353.0
    pool_variation: float = 0.08
    pool_correlation_um: float = 150.0
    layer_shift: float = 0.0
    unstable_keyhole_number: float = 14.0
    keyhole_pores_per_mm: float = 20.0
    keyhole_pore_radius_um: float = 12.0
    first_grain_um: float = 20.0
    stray_grain_um: float = 40.0
    lead_in_um: float = 150.0

    @property
    def space(self) -> ProcessSpace:
        """Laser power, scan speed, hatch spacing, layer thickness."""
        return ProcessSpace(
            [
                Parameter("laser_power_w", "W", 150.0, 400.0),
                Parameter("scan_speed_mm_s", "mm/s", 400.0, 1800.0),
                Parameter("hatch_um", "um", 60.0, 140.0),
                Parameter("layer_um", "um", 20.0, 60.0),
            ]
        )

    @property
    def phase_names(self) -> tuple[str, str]:
        """Names of labels 0 and 1."""
        return ("solid", "pore")

    def pool(self, process: Mapping[str, ProcessValue]) -> MeltPool:
        """Return the mean melt pool of a process point."""
        known = {name: float(process[name] or 0) for name in self.space.names}
        beam = Beam(
            known["laser_power_w"],
            1e-3 * known["scan_speed_mm_s"],
            radius_m=1e-6 * self.beam_radius_um,
            preheat_k=self.preheat_k,
        )
        return melt_pool(beam=beam, alloy=self.alloy)

    def simulate(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
    ) -> list[Microstructure]:
        """Build n cells at each process point.

        Args:
            parameters: A process dict, or several; all four parameters must be known.
            shape: Voxels along hatch, build and (in 3-D) scan direction.
            seed: Cell k overall draws from (seed, first + k) alone.
            n: Cells per process point.
            first: Index of the first cell.

        Raises:
            DataError: A parameter is missing or out of bounds, the shape is not 2-D or 3-D, or
                the beam melts nothing.

        >>> process = {"laser_power_w": 280.0, "scan_speed_mm_s": 1200.0}
        >>> process |= {"hatch_um": 100.0, "layer_um": 30.0}
        >>> cell = PowderBedFusion().simulate(process, shape=(32, 32), seed=0)[0]
        >>> cell.channels["orientations"].shape
        (4, 32, 32)
        """
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        pools = [self.pool(point) for point in campaign.points[::n]]
        for pool, point in zip(pools, campaign.points[::n], strict=True):
            if not pool.width_um > 0:
                raise DataError(
                    f"expected a beam that melts the alloy, got no melt pool at {point}; choose "
                    "more power or a smaller beam"
                )
        return [
            self._build(pools[k // n], point, campaign.shape, campaign.generator(k))
            for k, point in enumerate(campaign.points)
        ]

    def _build(
        self,
        pool: MeltPool,
        point: Mapping[str, ProcessValue],
        shape: tuple[int, ...],
        generator: torch.Generator,
    ) -> Microstructure:
        flat = len(shape) == 2
        extra = round(self.lead_in_um / self.voxel_size_um)
        tall = (shape[0], shape[1] + extra, 1 if flat else shape[2])
        block = Block(tall, self.voxel_size_um, section=flat)
        tracks = lay_tracks(
            pool,
            block,
            hatch_um=float(point["hatch_um"] or 0),
            layer_um=float(point["layer_um"] or 0),
            shift=self.layer_shift,
            variation=self.pool_variation,
            correlation_um=self.pool_correlation_um,
            generator=generator,
        )
        melted, lean = tracks.melt(block)
        excess = max(0.0, pool.keyhole_number / self.unstable_keyhole_number - 1)
        bubbles = tracks.bottom_pores(
            block,
            per_mm=self.keyhole_pores_per_mm * excess,
            radius_um=self.keyhole_pore_radius_um,
            generator=generator,
        )
        floor = self._floor(block, generator)
        quaternions = uniform_orientations(int(floor.max()) + 1, generator=generator).numpy()
        grains = columnar_growth(
            melted & ~bubbles,
            lean,
            stray=self._stray(block, generator),
            floor=floor,
            axes=crystal_axes(quaternions),
            periodic=(False, False, not flat),
        )[:, extra:].reshape(shape)
        return self._structure(grains, quaternions, point)

    def _stray(self, block: Block, generator: torch.Generator) -> Bool[np.ndarray, "x y z"]:
        thickness = self.first_grain_um if block.section else block.voxel_size_um
        chance = block.voxel_size_um**2 * thickness / self.stray_grain_um**3
        draws = torch.rand(*block.shape, generator=generator, dtype=torch.float64)
        return (draws < chance).numpy()

    def _floor(self, block: Block, generator: torch.Generator) -> Int[np.ndarray, "x z"]:
        """Return the grains that growth starts from: a Voronoi mosaic."""
        width = block.shape[0] * block.voxel_size_um
        depth = self.first_grain_um if block.section else block.scan_length_um
        count = max(1, round(width * depth / self.first_grain_um**2))
        centres = torch.rand(count, 2, generator=generator, dtype=torch.float64).numpy()
        planes = np.array([depth / 2]) if block.section else block.centres_um(2)
        points = np.stack(np.meshgrid(block.centres_um(0), planes, indexing="ij"), -1)
        # Twice as wide a box, half of it empty, keeps the hatch direction from wrapping round.
        nearest = first_arrival(
            points.reshape(-1, 2),
            centres * [width, depth],
            np.zeros(count),
            period=np.array([2 * width, depth]),
        )[1]
        return nearest.reshape(points.shape[:2])

    def _structure(
        self,
        grains: Int[np.ndarray, "*space"],
        quaternions: Float[np.ndarray, "orientation 4"],
        point: Mapping[str, ProcessValue],
    ) -> Microstructure:
        solid = grains >= 0
        turned = np.moveaxis(quaternions[grains % len(quaternions)], -1, 0)
        identity = np.reshape([1.0, 0.0, 0.0, 0.0], (4, *[1] * grains.ndim))
        ids = np.zeros(grains.shape, dtype=np.int32)
        ids[solid] = np.unique(grains[solid], return_inverse=True)[1] + 1
        return Microstructure(
            phases=(~solid).astype(np.uint8),
            voxel_size_um=self.voxel_size_um,
            periodic=(False, False, True)[: grains.ndim],
            process=point,
            phase_names=self.phase_names,
            channels={"grain_ids": ids, "orientations": np.where(solid, turned, identity)},
        )

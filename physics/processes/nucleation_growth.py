"""Nucleation and growth (JMAK): temperature and time → grains growing into their parent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.integrate import cumulative_trapezoid
from scipy.spatial import KDTree

from microstructures import DataError, Microstructure, Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from physics.processes.campaign import Campaign, Parameters
from physics.processes.transformation_kinetics import HoffmanLauritzen, Kinetics

# Nodes of the tables over time; constant rates are exact whatever their number.
TIMES = 513
# Extended volume at which nucleation is cut off: what is born later has a chance of exp(-40).
COMPLETE = 40.0
# Points whose distances to many nuclei are held at a time.
QUERIES = 2**16
UNIT_BALL = {2: math.pi, 3: 4 * math.pi / 3}


@dataclass(frozen=True)
class Clock:
    """Kinetics of one process point: nuclei per volume and reach of the front up to each time.

    A nucleus born when the reach is s covers at reach S everything within S - s of it, since all
    fronts move at one speed: reach is the clock by which grains compete, whatever T(t) was.

    Args:
        time_s: Times, from 0.
        reach_um: Integral of the growth rate.
        nuclei_per_um: Integral of all nucleation, per um^2 (2-D) or um^3 (3-D).
        ndim: 2 or 3.
    """

    time_s: Float[np.ndarray, " time"]
    reach_um: Float[np.ndarray, " time"]
    nuclei_per_um: Float[np.ndarray, " time"]
    ndim: int

    @property
    def extended_volume(self) -> Float[np.ndarray, " time"]:
        """Volume of all grains had they not met, per volume: integral of c (s(t) - s)^d dN."""
        births = np.diff(self.nuclei_per_um, prepend=0.0)
        middle = np.append(self.reach_um[0], (self.reach_um[1:] + self.reach_um[:-1]) / 2)
        radius = np.maximum(self.reach_um[:, None] - middle, 0)
        return UNIT_BALL[self.ndim] * (radius**self.ndim @ births)

    @property
    def transformed(self) -> Float[np.ndarray, " time"]:
        """Expected transformed fraction 1 - exp(-extended volume), Kolmogorov (1937)."""
        return 1 - np.exp(-self.extended_volume)


@dataclass(frozen=True)
class Growth:
    """Grains of one cell.

    Args:
        arrival_s: Time at which each voxel transforms; infinite where it has not by the end.
        grain_ids: Which grain a voxel belongs to, from 1 in order of birth; 0 is the parent.
        centres_um: Nuclei that became grains, `(grain, axis)`; swallowed ones are left out.
        births_s: When they appeared.
    """

    arrival_s: Float[np.ndarray, "*space"]
    grain_ids: Int[np.ndarray, "*space"]
    centres_um: Float[np.ndarray, "grain axis"]
    births_s: Float[np.ndarray, " grain"]


@dataclass(frozen=True)
class NucleationGrowth:
    """Random nucleation and isotropic growth until grains meet (JMAK).

    Nuclei appear at random places, some at once and some at a rate, and grow as balls at one
    speed; a point belongs to the grain that reaches it first. That arrival time is exact at voxel
    centres, min_i (s_i + |x - x_i|) in a periodic cell, not grown voxel by voxel. The expected
    fraction is X = 1 - exp(-X_ext) (Kolmogorov 1937; Johnson and Mehl 1939; Avrami 1939): at
    constant rates X_ext = pi/3 I G^2 t^3 in 2-D and pi/3 I G^3 t^4 in 3-D, with all nuclei there
    at the start pi N G^2 t^2 and 4 pi/3 N G^3 t^3. Phase 1 is transformed; channel "grain_ids"
    tells the grains apart (0 in the parent).

    A 2-D cell is a film thin against its grains: densities per area are those per volume times
    its thickness.

    Limits: one isotropic speed (no anisotropy, no soft impingement or solute depletion, so
    precipitates only while they are far apart), random nuclei (no sites on boundaries), no heat
    of transformation. X holds while grains stay smaller than half the cell.

    Args:
        voxel_size_um: Voxel edge.
        kinetics: Rates and the process parameters that set them: `HoffmanLauritzen` for polymer
            spherulites, `TurnbullFisher` for glass ceramics, `DirectRates`, or your own.
        time_bounds_s: Bounds of time_s in `.space`.
        film_thickness_um: Thickness that a 2-D cell stands for.
        phase_names: Names of labels 0 and 1.
    """

    voxel_size_um: float = 4.0
    kinetics: Kinetics = field(default_factory=HoffmanLauritzen)
    time_bounds_s: tuple[float, float] = (20.0, 1000.0)
    film_thickness_um: float = 50.0
    phase_names: tuple[str, str] = ("melt", "spherulite")

    @property
    def space(self) -> ProcessSpace:
        """Parameters of the kinetics, and time_s."""
        time = Parameter("time_s", "s", *self.time_bounds_s, "log")
        return ProcessSpace([*self.kinetics.parameters, time])

    def simulate(
        self,
        parameters: Parameters,
        *,
        shape: Sequence[int],
        seed: int,
        n: int = 1,
        first: int = 0,
    ) -> list[Microstructure]:
        """Simulate n periodic cells at each process point.

        Args:
            parameters: A process dict, or several; all parameters must be known.
            shape: Voxels along each axis, 2 or 3 axes.
            seed: Cell k overall draws from (seed, first + k) alone.
            n: Cells per process point.
            first: Index of the first cell.

        Raises:
            DataError: A parameter is missing or out of bounds, the shape is not 2-D or 3-D, or
                more nuclei than voxels are expected.

        >>> process = {"temperature_k": 395.0, "time_s": 100.0}
        >>> cell = NucleationGrowth().simulate(process, shape=(32, 32), seed=0)[0]
        >>> cell.channels["grain_ids"].shape
        (32, 32)
        """
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        return [
            Microstructure(
                phases=(growth.grain_ids > 0).astype(np.uint8),
                voxel_size_um=self.voxel_size_um,
                process=point,
                phase_names=self.phase_names,
                channels={"grain_ids": growth.grain_ids},
            )
            for growth, point in zip(self._grow(campaign), campaign.points, strict=True)
        ]

    def grow(
        self, parameters: Parameters, *, shape: Sequence[int], seed: int, n: int = 1, first: int = 0
    ) -> list[Growth]:
        """Return arrival times and nuclei of the cells, the fields behind `simulate`."""
        campaign = Campaign.plan(
            parameters, space=self.space, shape=shape, seed=seed, n=n, first=first
        )
        return self._grow(campaign)

    def clock(self, process: Mapping[str, ProcessValue], *, ndim: int) -> Clock:
        """Return nucleation, growth and expected fraction from time 0 to the end of the process."""
        known = {name: float(value or 0) for name, value in process.items()}
        time = np.linspace(0.0, known["time_s"], TIMES)
        rates = self.kinetics.rates(known, time)
        active = np.maximum.accumulate(rates.sites_per_um3)
        nuclei = active + cumulative_trapezoid(rates.nucleation_per_um3_s, time, initial=0.0)
        depth = self.film_thickness_um if ndim == 2 else 1.0
        reach = cumulative_trapezoid(rates.growth_um_s, time, initial=0.0)
        return Clock(time, reach, depth * nuclei, ndim)

    def _grow(self, campaign: Campaign) -> list[Growth]:
        volume = math.prod(campaign.shape) * self.voxel_size_um ** len(campaign.shape)
        clocks = [self.clock(point, ndim=len(campaign.shape)) for point in campaign.points]
        for clock, point in zip(clocks, campaign.points, strict=True):
            expected = volume * _until_complete(clock).nuclei_per_um[-1]
            if expected > math.prod(campaign.shape):
                raise DataError(
                    f"expected fewer nuclei than voxels, got about {expected:.3g} nuclei at "
                    f"{point}; choose a smaller voxel_size_um than {self.voxel_size_um:g}"
                )
        return [
            _grow_cell(clock, campaign.shape, self.voxel_size_um, campaign.generator(k))
            for k, clock in enumerate(clocks)
        ]


def first_arrival(
    points: Float[np.ndarray, "point axis"],
    centres: Float[np.ndarray, "nucleus axis"],
    starts: Float[np.ndarray, " nucleus"],
    *,
    period: Float[np.ndarray, " axis"],
) -> tuple[Float[np.ndarray, " point"], Int[np.ndarray, " point"]]:
    """Return min_i (start_i + |x - x_i|) at each point of a periodic box, and the i.

    Exact: the nearest nuclei are looked at, twice as many each time, until those further away
    cannot win.
    """
    if not len(centres):
        return np.full(len(points), np.inf), np.full(len(points), -1)
    tree = KDTree(np.mod(centres, period), boxsize=period)
    arrival, winner = np.empty(len(points)), np.empty(len(points), dtype=np.int64)
    for begin in range(0, len(points), QUERIES):
        open_ = np.arange(begin, min(begin + QUERIES, len(points)))
        count = min(4, len(centres))
        while len(open_):
            found = tree.query(points[open_], k=count)
            distance, index = (np.reshape(part, (len(open_), count)) for part in found)
            total = starts[index] + distance
            best = total.argmin(1)
            arrival[open_] = np.take_along_axis(total, best[:, None], 1)[:, 0]
            winner[open_] = np.take_along_axis(index, best[:, None], 1)[:, 0]
            undecided = starts.min() + distance[:, -1] < arrival[open_]
            open_ = open_[undecided] if count < len(centres) else open_[:0]
            count = min(2 * count, len(centres))
    return arrival, winner


def _until_complete(clock: Clock) -> Clock:
    """Return the clock up to the time at which no untransformed matter is left to nucleate in."""
    last = int(np.searchsorted(clock.extended_volume, COMPLETE)) + 1
    return Clock(clock.time_s[:last], clock.reach_um[:last], clock.nuclei_per_um[:last], clock.ndim)


def _grow_cell(
    clock: Clock, shape: tuple[int, ...], spacing: float, generator: torch.Generator
) -> Growth:
    period = spacing * np.array(shape)
    nuclei = period.prod() * _until_complete(clock).nuclei_per_um
    count = int(torch.poisson(torch.tensor(nuclei[-1]), generator=generator))
    draws = torch.rand(count, len(shape) + 1, generator=generator, dtype=torch.float64).numpy()
    centres = draws[:, 1:] * period
    births = np.interp(np.sort(draws[:, 0]) * nuclei[-1], nuclei, clock.time_s[: len(nuclei)])
    starts = np.interp(births, clock.time_s, clock.reach_um)
    # A nucleus born where another grain already is has no grain of its own.
    free = first_arrival(centres, centres, starts, period=period)[1] == np.arange(count)
    centres, starts, births = centres[free], starts[free], births[free]
    axes = [spacing * (np.arange(n) + 0.5) for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape))
    reach, owner = first_arrival(points, centres, starts, period=period)
    done = reach <= clock.reach_um[-1]
    arrival = np.where(done, np.interp(reach, clock.reach_um, clock.time_s), np.inf)
    ids = np.where(done, owner + 1, 0).astype(np.int32)
    return Growth(arrival.reshape(shape), ids.reshape(shape), centres, births)

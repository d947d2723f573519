"""Training the conditional GAN of volumes on plane sections alone (slice critics)."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators.gan import ConditionalGAN
from generators.gan_net import PhaseGenerator
from generators.gan_training import (
    GanSettings,
    code_loss,
    fit_fractions,
    initial_judge,
    initial_net,
)
from generators.judge import Judge
from generators.plane_sections import all_sections, volume_periodicity
from generators.section_draw import SectionDraw, expected_shares, volume_sides
from generators.soft_cut import cut_through
from generators.training_density import TrainingDensity
from microstructures import DataError
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.training import Progress, train


def train_gan_on_sections(
    sections: Sequence[MicrostructureDataset],
    settings: GanSettings,
    out: str | Path,
    *,
    progress: Progress | None = None,
    card: str = "",
) -> ConditionalGAN:
    """Train a generator of volumes on their plane sections and save it; repeat to resume.

    SliceGAN (Kench and Cooper 2021): the net makes volumes, and sections of them are judged beside
    real ones, by a judge for all three directions where the material is isotropic, or one per
    direction. As in `train_gan` a judge matches the mean and scatter of physical descriptors and
    later holds a critic besides. Whole volumes are cut at the fractions that the sections have in
    the mean at their process point, so that the amounts of sections scatter as they do in a
    material, and sampling cuts at the same fractions: sections do not tell how those of volumes
    scatter.

    Limits: sections fix the two-point statistics in their planes and the fractions, not the
    topology in 3-D. Volumes in training have the sides of the sections, which must be equal where
    there is one kind.

    Args:
        sections: 2-D data of an isotropic material, or three data sets of sections normal to axis
            0, 1 and 2, each holding the other two axes in order. Where they have process
            parameters, sections of the second and third are taken at the points nearest to those
            of the first.
        settings: As for whole cells; sizes and batches are those of volumes. With three data sets
            no axes are exchanged.
        out: Folder of the model.
        progress: Called after each step.
        card: Text of the model's card.

    Raises:
        DataError: Not one or three data sets of 2-D cells, or they or the nets do not fit
            together.
        ConvergenceError: Training diverged.
    """
    objective = _checked_objective(sections, settings)
    net, first = objective.net, sections[0]
    fit_fractions(
        net,
        first,
        parameter_dropout=settings.parameter_dropout,
        seed=settings.training.seed,
        actual=expected_shares(first),
    )
    out = Path(out)
    state = train(
        objective,
        SectionDraw(sections, settings, net),
        n_samples=len(first),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={"settings": settings.model_dump(), "data": [part.digest for part in sections]},
        progress=progress,
    )
    objective.load_state_dict(state)
    _still(net)
    model = ConditionalGAN(
        net,
        space=first.space,
        voxel_size_um=first.voxel_size_um,
        periodic=net.config["periodic"],
        phase_names=first.phase_names,
        match_fractions=settings.match_fractions,
        density=TrainingDensity.fit(first.process_units, first.space),
    )
    model.save_pretrained(out, card=card, half=settings.half)
    return model


def _checked_objective(
    sections: Sequence[MicrostructureDataset], settings: GanSettings
) -> "SectionObjective":
    """Return the untrained loss of sections that fit together and the nets."""
    _check_alike(sections)
    if (settings.init_from, settings.early_stopping) != (None, None):
        raise DataError("expected no init_from or early_stopping for volumes; leave them out")
    objective, shape = initial_section_objective(sections, settings), volume_sides(sections)
    multiple = max(objective.net.size_multiple, *(j.critic.size_multiple for j in objective.each))
    if any(s % multiple for s in shape):
        raise DataError(
            f"expected sections whose sides are multiples of {multiple}, got those of a volume of "
            f"{tuple(shape)}; use fewer widths or another crop"
        )
    return objective


def initial_section_objective(
    sections: Sequence[MicrostructureDataset], settings: GanSettings
) -> "SectionObjective":
    """Return the loss around untrained nets, their weights drawn from the settings' seed."""
    periodic = volume_periodicity([data.periodic for data in sections])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.training.seed, "weights"))
        net = initial_net(sections[0], settings, periodic=periodic)
        judges = [initial_judge(data, settings) for data in sections]
    return SectionObjective(net, judges, settings)


class SectionObjective(nn.Module):
    """Generator of volumes, judges of their sections and code in one loss."""

    steps: Tensor

    def __init__(self, net: PhaseGenerator, judges: Sequence[Judge], settings: GanSettings) -> None:
        super().__init__()
        self.net, self.judges = net, nn.ModuleList(judges)
        self.settings = settings
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def each(self) -> list[Judge]:
        """The judges: one, or those of sections normal to axis 0, 1 and 2."""
        return list(cast(Sequence[Judge], self.judges))

    def forward(
        self,
        units: Tensor,
        drop: Tensor,
        code: Tensor,
        white: Tensor,
        starts: Tensor,
        *real: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings = self.settings
        process = self.net.process(units, drop=drop)
        condition = self.net.condition(process, code)
        field = self.net(white, condition)
        with torch.no_grad():
            fractions = self.net.fractions(condition)[0] if settings.match_fractions else None
        made, soft = cut_through(field, fractions, periodic=self.net.config["periodic"])
        total, nats = code_loss(self.net, made, process, code, nats=settings.code_nats)
        hard, grey = (chosen_sections(x, starts, settings.sections) for x in (made, soft))
        if len(self.each) == 1:
            hard, grey = ([_by_volume(x, len(units))] for x in (hard, grey))
        self.steps += 1
        shown: dict[str, Tensor] = {"code_nats": nats}
        for index, judge in enumerate(self.each):
            count = len(hard[index]) // len(units)
            about = units.repeat_interleave(count, 0), drop.repeat_interleave(count, 0)
            pull, numbers = judge.pull(hard[index], grey[index], *about)
            total = total + settings.matching * pull / len(self.each)
            if self.steps > settings.matching_steps:
                order = torch.randperm(len(hard[index]), generator=_order(self.steps))
                adversarial, more = judge.contest(
                    real[index][order], hard[index][order], *(x[order] for x in about)
                )
                total, numbers = total + adversarial / len(self.each), {**numbers, **more}
            shown |= {f"{name}_{index}": value for name, value in numbers.items()}
        return total, shown


def chosen_sections(
    x: Float[Tensor, "batch channel x y z"], starts: Tensor, count: int
) -> list[Float[Tensor, "section channel u v"]]:
    """Return evenly spaced sections normal to axis 0, 1 and 2, those of the first volume first.

    Args:
        x: Volumes.
        starts: The first section along each axis; the others follow around the axis.
        count: Sections per axis, as far as there are so many.
    """
    chosen = []
    for normal, start in enumerate(starts.tolist()):
        n = x.shape[2 + normal]
        few = min(count, n)
        places = (start + torch.arange(few) * n // few) % n
        chosen.append(all_sections(x.index_select(2 + normal, places.to(x.device)), normal))
    return chosen


def _by_volume(sections: Sequence[Tensor], volumes: int) -> Tensor:
    """Return sections of all directions in one batch, those of the first volume first."""
    return torch.cat([s.unflatten(0, (volumes, -1)) for s in sections], 1).flatten(0, 1)


def _order(step: Tensor) -> torch.Generator:
    # The penalties see the first few images only: a different few at every step.
    return torch.Generator().manual_seed(int(step))


def _still(net: PhaseGenerator) -> None:
    """Make the fractions of a process point certain, to about a ten-thousandth."""
    last = net.fraction_head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight[net.n_phases :] = 0.0
        last.bias[net.n_phases :] = -20.0


def _check_alike(sections: Sequence[MicrostructureDataset]) -> None:
    alike = [(d.voxel_size_um, d.phase_names, tuple(d.space.names)) for d in sections]
    if any(entry != alike[0] for entry in alike):
        raise DataError(
            f"expected sections of one voxel size, phases and process parameters, got {alike}"
        )

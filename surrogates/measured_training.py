"""Training a measured-property surrogate: by specimen, never by picture."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from microstructures import DataError, MicrostructureDataset
from microstructures.seeds import derive_seed
from networks.training import Progress, TrainingSettings, train
from surrogates.crop_descriptors import CropDescriptors
from surrogates.descriptor_basis import DescriptorBasis
from surrogates.kernel_regression import KernelRegression, conformal_margin
from surrogates.measured_property import About, MeasuredPropertySurrogate, Scale
from surrogates.share_net import ShareDraw, ShareNet, ShareObjective
from surrogates.specimens import Specimens, split_specimens

LEAST_SPECIMENS = 4  # from which a regression with an error of its own can be fitted


class MeasuredSettings(BaseModel):
    """Columns of the table, crops, and the regression of a measured-property surrogate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    property_column: str = Field("property", description="column of the measured property")
    specimen_column: str = Field("specimen", description="column of the specimens' names")
    input_columns: tuple[str, ...] = Field((), description="columns known beside the pictures")
    lower: float | str | None = Field(
        None, description="what the property cannot be below: a number or a column"
    )
    upper: float | str | None = Field(
        None, description="what the property cannot be above: a number or a column"
    )
    crop: int | None = Field(None, ge=8, description="side of random crops; null: whole pictures")
    crops: int = Field(16, ge=1, description="random crops per specimen")
    regression: Literal["ridge", "gaussian process", "net"] = Field(
        "gaussian process",
        description="on descriptors; net: a pooled net corrects the Gaussian process",
    )
    components: int = Field(8, ge=1, description="principal components of each descriptor")
    encoder: str | None = Field(
        None, description="property surrogate whose frozen encoder gives further descriptors"
    )
    confidence: float = Field(0.9, gt=0, lt=1, description="share that the interval covers")
    held_out: float = Field(0.2, gt=0, lt=1, description="net: share of specimens to calibrate on")
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (24, 32, 48), min_length=1, description="net: channels per level"
    )
    features: int = Field(48, ge=4, description="net: pooled features")
    training: TrainingSettings = TrainingSettings.model_validate(
        {"steps": 600, "learning_rate": 2e-3}
    )

    @field_validator("input_columns", mode="before")
    @classmethod
    def _named(cls, given: object) -> object:
        """Take "a,b" for ("a", "b"), as a command line gives it."""
        return tuple(given.split(",")) if isinstance(given, str) else given

    @property
    def bounds(self) -> tuple[float | str, float | str] | None:
        """Both bounds, or None.

        Raises:
            DataError: Only one of them is given.
        """
        if self.lower is None and self.upper is None:
            return None
        if self.lower is None or self.upper is None:
            raise DataError(
                f"expected both bounds of the property or none, got lower = {self.lower} and "
                f"upper = {self.upper}; give a number or a column for the other"
            )
        return (self.lower, self.upper)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the table needs."""
        named = [bound for bound in self.bounds or () if isinstance(bound, str)]
        return tuple(dict.fromkeys([self.property_column, *self.input_columns, *named]))

    def gathered(
        self, dataset: MicrostructureDataset, columns: Mapping[str, Mapping[str, float]]
    ) -> Specimens:
        """Return the specimens of a data set with what a table (`read_columns`) tells of them."""
        return Specimens.gathered(
            dataset,
            columns,
            inputs=self.input_columns,
            measured=self.property_column,
            bounds=self.bounds,
        )


def train_measured_property(
    specimens: Specimens,
    settings: MeasuredSettings,
    out: str | Path,
    *,
    n_phases: int,
    periodic: tuple[bool, ...],
    card: str = "",
    progress: Progress | None = None,
) -> MeasuredPropertySurrogate:
    """Fit a surrogate of one number per specimen, save it in `out` and return it.

    Every specimen counts once, however many pictures and crops it has: descriptors are averaged
    over its crops, errors and intervals are those of whole specimens left out. The interval of a
    regression is jackknife+ over all specimens; of a net it is split conformal on a share of the
    specimens. Both promise no more than the number of specimens allows: of a 90 % interval
    nothing with fewer than 9 (calibration) specimens.

    Args:
        specimens: Pictures, inputs, measured values and bounds (`MeasuredSettings.gathered`).
        settings: Crops, descriptors and regression.
        out: Folder of the model; a net's checkpoints lie in `OUT.checkpoints`.
        n_phases: Number of labels.
        periodic: One flag per axis of the pictures; crops are not periodic.
        card: What the model is (Markdown).
        progress: Called after each step of a net's training.

    Raises:
        DataError: Too few specimens, a value beyond its bounds, or pictures that do not fit.
        ConvergenceError: A net's training diverged.
    """
    if len(specimens) < LEAST_SPECIMENS:
        raise DataError(
            f"expected at least {LEAST_SPECIMENS} specimens, got {len(specimens)}: more pictures "
            "of the same specimen are no further measurements; measure more specimens"
        )
    seed = settings.training.seed
    scale = Scale.of(specimens)
    crops = specimens.cropped(settings.crop, settings.crops, seed=seed)
    wraps = periodic if settings.crop is None else (False,) * len(periodic)
    descriptors = CropDescriptors.of(n_phases, wraps, settings.encoder)
    basis = DescriptorBasis.fit(descriptors, crops, settings.components)
    about = About(
        measured=settings.property_column,
        inputs=settings.input_columns,
        bounds=settings.bounds,
        crop=settings.crop,
        crops=settings.crops,
        confidence=settings.confidence,
        seed=seed,
    )
    rows, targets = basis.rows(crops), scale.targets(crops)
    products = settings.regression == "ridge"
    if settings.regression == "net":
        learnt, held_out = split_specimens(crops.names, settings.held_out, seed=seed)
        fit = _fitted(basis, rows[learnt], targets[learnt], products)
        inputs = basis.inputs(rows[learnt])
        net = _trained_net(
            crops.select(learnt), inputs, scale, fit, settings, descriptors, Path(out), progress
        )
        model = MeasuredPropertySurrogate(about, basis, rows, scale, fit, net=net)
        model.margin = _margin(model, crops.select(held_out))
    else:
        fit = _fitted(basis, rows, targets, products)
        model = MeasuredPropertySurrogate(about, basis, rows, scale, fit, products=products)
    model.save_pretrained(out, card=card)
    return MeasuredPropertySurrogate.from_pretrained(out)


def _fitted(
    basis: DescriptorBasis, rows: Tensor, targets: Tensor, products: bool
) -> KernelRegression:
    if products:
        return KernelRegression.ridge(basis.with_products(rows), targets)
    groups = basis.groups(basis.inputs(rows).shape[1])
    return KernelRegression.gaussian_process(rows, targets, groups.tolist())


def _trained_net(
    crops: Specimens,
    inputs: Tensor,
    scale: Scale,
    fit: KernelRegression,
    settings: MeasuredSettings,
    descriptors: CropDescriptors,
    out: Path,
    progress: Progress | None,
) -> ShareNet:
    """Return a net that corrects what a regression says of specimens left out of it."""
    seed, bounded = settings.training.seed, crops.lower is not None
    start = fit.targets - fit.left_out
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = ShareNet(
            n_phases=descriptors.n_phases,
            periodic=descriptors.periodic,
            inputs=inputs.shape[1],
            widths=settings.widths,
            features=settings.features,
            bounded=bounded,
        )
    net.check_shape(crops.phases.shape[1:])
    targets = scale.of_net(bounded).targets(crops)
    start = scale.shares(start) if bounded else start
    objective = ShareObjective(net)
    state = train(
        objective,
        ShareDraw(crops, inputs, start, targets, descriptors.periodic),
        n_samples=len(crops),
        settings=settings.training,
        folder=out.with_name(out.name + ".checkpoints"),
        identity={
            "settings": settings.model_dump(mode="json"),
            "specimens": dict(zip(crops.names, targets.tolist(), strict=True)),
        },
        progress=progress,
    )
    objective.load_state_dict(state)
    return net


def _margin(model: MeasuredPropertySurrogate, known: Specimens) -> float:
    """Return how far a net's answers are off, in its own scale, on specimens held out."""
    assert model.net is not None
    scale = model.scale.of_net(model.net.bounded)
    found = replace(known, measured=model.predict(known).value)
    errors = (scale.targets(found) - scale.targets(known)).abs()
    return conformal_margin(errors, confidence=model.about.confidence)

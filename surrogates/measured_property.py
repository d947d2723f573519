"""MeasuredPropertySurrogate: one measured number per specimen from a few pictures of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from networks.saving import load_model, resolve_model, save_model
from surrogates.descriptor_basis import DescriptorBasis
from surrogates.kernel_regression import KernelRegression, nearest_distance
from surrogates.saved_nets import SHIPPED
from surrogates.share_net import ShareNet
from surrogates.specimens import Specimens

ROUNDING = 1e-3  # of the bounds' distance: how far a measured value may lie beyond them


@dataclass(frozen=True)
class MeasuredPrediction:
    """What is predicted of some specimens, in the unit of the property.

    `value`, `lower` and `upper` lie between the physical bounds, where there are some, whatever
    was learnt. The interval is "statistical": right for specimens like those of training, and
    infinite (or the physical bounds) where there were too few of them. `distance` is that from
    the training specimens in descriptors and inputs, at most 1 for 95 % of them. `crop_spread` is
    the standard deviation of what single crops of a specimen say, 0 where it has one crop.
    """

    value: Float[Tensor, " specimen"]
    lower: Float[Tensor, " specimen"]
    upper: Float[Tensor, " specimen"]
    distance: Float[Tensor, " specimen"]
    crop_spread: Float[Tensor, " specimen"]
    level: str = "statistical"


@dataclass(frozen=True)
class About:
    """What a measured-property surrogate predicts, and from what.

    `measured` (the property) and `inputs` are columns of a table; `bounds` are numbers or columns;
    `crop` is the side of the random crops (None: pictures as they are), `crops` their number per
    specimen.
    """

    measured: str
    inputs: tuple[str, ...]
    bounds: tuple[float | str, float | str] | None
    crop: int | None
    crops: int
    confidence: float
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a table needs for a prediction."""
        named = [b for b in self.bounds or () if isinstance(b, str)]
        return tuple(dict.fromkeys([*self.inputs, *named]))


@dataclass(frozen=True)
class Scale:
    """Between a property and what is learnt: its share of the bounds, or the number itself.

    `mean` and `spread` standardise it over the training specimens.
    """

    mean: float
    spread: float

    @classmethod
    def of(cls, specimens: Specimens) -> "Scale":
        """Return the scale of measured specimens.

        Raises:
            DataError: A measured value is beyond its bounds.
        """
        plain = cls(0.0, 1.0).targets(specimens)
        if specimens.lower is not None:
            off = ((plain < -ROUNDING) | (plain > 1 + ROUNDING)).nonzero().flatten()
            if len(off):
                k = int(off[0])
                assert specimens.measured is not None
                assert specimens.upper is not None
                raise DataError(
                    f"specimen {specimens.names[k]!r}: expected a value between "
                    f"{float(specimens.lower[k]):g} and {float(specimens.upper[k]):g}, got "
                    f"{float(specimens.measured[k]):g}; correct it, or widen the bounds"
                )
        return cls(float(plain.mean()), max(float(plain.std()), 1e-9))

    def targets(self, specimens: Specimens) -> Float[Tensor, " specimen"]:
        """Return the standardised targets of measured specimens."""
        assert specimens.measured is not None
        low, wide = _bounds(specimens)
        return ((specimens.measured - low) / wide - self.mean) / self.spread

    def shares(self, targets: Float[Tensor, " specimen"]) -> Float[Tensor, " specimen"]:
        """Return shares of the bounds of standardised targets, unlimited."""
        return self.mean + self.spread * targets

    def of_net(self, bounded: bool) -> "Scale":
        """Return the scale of a net's answers: shares as they are, numbers standardised."""
        return Scale(0.0, 1.0) if bounded else self

    def values(
        self, targets: Float[Tensor, " specimen"], specimens: Specimens
    ) -> Float[Tensor, " specimen"]:
        """Return the property, inside its bounds, of standardised targets."""
        low, wide = _bounds(specimens)
        share = self.shares(targets)
        return low + wide * (share if specimens.lower is None else share.clamp(0, 1))


class MeasuredPropertySurrogate:
    """Predict a property measured on specimens from pictures of them and numbers beside.

    A regression on descriptors (ridge or Gaussian process), averaged over the crops of a specimen;
    where there is a net, it corrects that crop by crop. See `train_measured_property`.

    Limits: it knows the training specimens' kind only; the crops' side and resolution are those of
    training.

    >>> model = MeasuredPropertySurrogate.from_pretrained("hardness")  # doctest: +SKIP
    >>> columns = read_columns("new.csv", model.about.columns)  # doctest: +SKIP
    >>> found = model.predict(model.specimens(dataset, columns))  # doctest: +SKIP
    """

    def __init__(
        self,
        about: About,
        basis: DescriptorBasis,
        known: Float[Tensor, "row entry"],
        scale: Scale,
        regression: KernelRegression,
        *,
        products: bool = False,
        net: ShareNet | None = None,
        margin: float = torch.inf,
    ) -> None:
        self.about, self.basis, self.known, self.scale = about, basis, known, scale
        self.regression, self.products = regression, products
        self.net = None if net is None else net.eval().requires_grad_(False)
        self.margin = margin

    def specimens(self, dataset: Any, columns: Mapping[str, Mapping[str, float]]) -> Specimens:
        """Return the crops of the specimens of a data set, as `predict` wants them.

        Raises:
            DataError: A specimen, a column or the size of the pictures does not fit.
        """
        about = self.about
        whole = Specimens.gathered(dataset, columns, inputs=about.inputs, bounds=about.bounds)
        return whole.cropped(about.crop, about.crops, seed=about.seed)

    @torch.no_grad()
    def predict(self, specimens: Specimens) -> MeasuredPrediction:
        """Predict the property of specimens from their crops.

        Raises:
            DataError: Labels, sides, inputs or bounds do not fit.
        """
        self._check(specimens)
        rows = self.basis.rows(specimens)
        design, scale = self._design(rows), self.scale
        targets = self.regression.predict(design)
        if self.net is None:
            single = self.regression.predict(self._design(self.basis.crop_rows(specimens)))
            low, high = self.regression.interval(design, confidence=self.about.confidence)
        else:
            scale = scale.of_net(self.net.bounded)
            start = self.scale.shares(targets) if self.net.bounded else targets
            single = self.net.of_crops(specimens, self.basis.inputs(rows), start)
            targets = specimens.mean(single[:, None])[:, 0]
            low, high = targets - self.margin, targets + self.margin
        value, low, high = (scale.values(part, specimens) for part in (targets, low, high))
        spread = self._spread(scale, single, specimens)
        return MeasuredPrediction(value, low, high, nearest_distance(rows, self.known), spread)

    def save_pretrained(self, folder: str | Path, *, card: str = "") -> Path:
        """Save config, weights and card as a hashed folder."""
        about, state = self.about, {f"basis.{k}": v for k, v in self.basis.state().items()}
        config: dict[str, Any] = {
            "about": {**vars(about), "inputs": list(about.inputs)},
            "descriptors": self.basis.config,
            "scale": vars(self.scale),
            "products": self.products,
        }
        state["known"] = self.known.clone()  # may be the design itself, which is saved too
        fit, names = self.regression, ("design", "targets", "lengths")
        config["regression"] = {"noise": fit.noise, "smooth": fit.smooth}
        state |= {f"regression.{name}": getattr(fit, name) for name in names}
        if self.net is not None:
            margin = None if self.margin == torch.inf else self.margin
            config |= {"net": dict(self.net.config), "margin": margin}
            state |= {f"net.{k}": v for k, v in self.net.state_dict().items()}
        return save_model(folder, name=type(self).__name__, config=config, state=state, card=card)

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path) -> "MeasuredPropertySurrogate":
        """Load a saved model.

        Raises:
            CheckpointError: No such model, its files were altered, or the frozen encoder that it
                looks through is another one by now.
        """
        config, state = load_model(resolve_model(folder_or_name, SHIPPED), name=cls.__name__)
        given = dict(config["about"])
        bounds = None if given["bounds"] is None else tuple(given["bounds"])
        about = About(**{**given, "inputs": tuple(given["inputs"]), "bounds": bounds})
        parts = {
            prefix: {
                key.removeprefix(f"{prefix}."): v
                for key, v in state.items()
                if key.startswith(prefix)
            }
            for prefix in ("basis", "regression", "net")
        }
        exact = {k: {n: v.double() for n, v in part.items()} for k, part in parts.items()}
        basis = DescriptorBasis.from_state(config["descriptors"], exact["basis"])
        net = None
        if "net" in config:
            net = ShareNet(**config["net"])
            net.load_state_dict(parts["net"])
        return cls(
            about,
            basis,
            state["known"].double(),
            Scale(**config["scale"]),
            KernelRegression(**exact["regression"], **config["regression"]),
            products=config["products"],
            net=net,
            margin=torch.inf if config.get("margin") is None else config["margin"],
        )

    def _design(self, rows: Tensor) -> Tensor:
        return self.basis.with_products(rows) if self.products else rows

    def _spread(self, scale: Scale, single: Tensor, specimens: Specimens) -> Tensor:
        """Return the standard deviation over each specimen's crops, in the property's unit."""
        mean = specimens.mean(single[:, None])[:, 0]
        square = specimens.mean((single - mean[specimens.owner]).square()[:, None])[:, 0]
        counts = torch.bincount(specimens.owner, minlength=len(specimens))
        unbiased = square * counts / (counts - 1).clamp_min(1)
        return unbiased.sqrt() * scale.spread * _bounds(specimens)[1]

    def _check(self, specimens: Specimens) -> None:
        known, given = len(self.about.inputs), specimens.inputs.shape[1]
        if given != known:
            raise DataError(
                f"expected {known} inputs ({', '.join(self.about.inputs)}), got {given}; give the "
                "columns that the model was trained with"
            )
        if (self.about.bounds is None) != (specimens.lower is None):
            raise DataError(
                f"expected the bounds {self.about.bounds} that the model was trained with, got "
                f"{'none' if specimens.lower is None else 'some'}"
            )


def _bounds(specimens: Specimens) -> tuple[Tensor, Tensor]:
    """Return the lower bound and the width of each specimen's; 0 and 1 where there are none."""
    if specimens.lower is None or specimens.upper is None:
        return torch.zeros(len(specimens)).double(), torch.ones(len(specimens)).double()
    return specimens.lower, specimens.upper - specimens.lower

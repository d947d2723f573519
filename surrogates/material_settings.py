"""Which materials a surrogate learns for: the settings that its trainings share."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from surrogates.quantities import MaterialRange


class MaterialSettings(BaseModel):
    """Contrasts and Poisson's ratios that each training cell's materials are drawn from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lowest_contrast: float = Field(3.0, ge=1, description="smallest ratio of moduli")
    highest_contrast: float = Field(30.0, ge=1, description="largest ratio of moduli")
    lowest_poisson_ratio: float = Field(0.2, gt=-1, lt=0.5, description="Poisson's ratios from")
    highest_poisson_ratio: float = Field(0.4, gt=-1, lt=0.5, description="Poisson's ratios to")
    random_fields: int = Field(
        300, ge=0, description="random-field cells added to the data (two phases)"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "MaterialSettings":
        pairs = {
            "contrast": (self.lowest_contrast, self.highest_contrast),
            "poisson_ratio": (self.lowest_poisson_ratio, self.highest_poisson_ratio),
        }
        for name, (low, high) in pairs.items():
            if low > high:
                raise ValueError(f"lowest_{name} {low} is above highest_{name} {high}")
        return self

    @property
    def materials(self) -> MaterialRange:
        """The range that materials are drawn from."""
        return MaterialRange(
            (self.lowest_contrast, self.highest_contrast),
            (self.lowest_poisson_ratio, self.highest_poisson_ratio),
        )

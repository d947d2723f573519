"""Microstructure → fields and properties by trained nets, each answer with its bracket."""

from surrogates.fields import FieldPrediction, FieldSurrogate
from surrogates.image_fields import ImageFieldPrediction, ImageFieldSurrogate
from surrogates.ladder import FieldRung, PropertyRung, SolverRung, evaluate
from surrogates.measured_property import MeasuredPropertySurrogate
from surrogates.plastic_path import PlasticPrediction, PlasticSurrogate
from surrogates.properties import PropertyPrediction, PropertySurrogate

__all__ = [
    "FieldPrediction",
    "FieldRung",
    "FieldSurrogate",
    "ImageFieldPrediction",
    "ImageFieldSurrogate",
    "MeasuredPropertySurrogate",
    "PlasticPrediction",
    "PlasticSurrogate",
    "PropertyPrediction",
    "PropertyRung",
    "PropertySurrogate",
    "SolverRung",
    "evaluate",
]

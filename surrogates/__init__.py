"""Microstructure → fields and properties by trained nets, each answer with its bracket."""

from surrogates.fields import FieldPrediction, FieldSurrogate

__all__ = ["FieldPrediction", "FieldSurrogate"]

"""Sums of shifted voxel fields as a small graph, and its transpose.

A term is a multiple of a node's field, read at an offset. Adding terms makes nodes; equal sums,
also ones that differ by a shift or a factor, are made once. The transpose of the map from inputs
to some terms follows from the graph, as in reverse differentiation. `ShiftProgram` runs a graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Offset = tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """factor * field(node) at v + offset, for every voxel v."""

    node: int
    offset: Offset
    factor: float = 1.0

    def shifted(self, axis: int, step: int) -> "Term":
        """Return the term as seen `step` voxels further along an axis."""
        moved = tuple(o + step * (k == axis) for k, o in enumerate(self.offset))
        return Term(self.node, moved, self.factor)

    def times(self, factor: float) -> "Term":
        """Return a multiple of the term."""
        return Term(self.node, self.offset, self.factor * factor)


@dataclass(frozen=True)
class ShiftedSum:
    """first(v) + ratio * second(v + offset)."""

    first: int
    second: int
    offset: Offset
    ratio: float

    @property
    def sources(self) -> tuple[tuple[int, Offset], ...]:
        """Nodes that are read, and at which offsets."""
        return (self.first, (0,) * len(self.offset)), (self.second, self.offset)


@dataclass(frozen=True)
class WeightedShift:
    """source(v + offset) * weight(v), the weight a field given to the program."""

    source: int
    offset: Offset
    weight: int

    @property
    def sources(self) -> tuple[tuple[int, Offset], ...]:
        """Nodes that are read, and at which offsets."""
        return ((self.source, self.offset),)


Node = ShiftedSum | WeightedShift


class ShiftGraph:
    """A calculation on a grid of `dim` axes; nodes below `inputs` are the fields given to it."""

    def __init__(self, dim: int, inputs: int) -> None:
        self.dim = dim
        self.inputs = inputs
        self.nodes: dict[int, Node] = {}
        self._known: dict[Node, int] = {}

    def input(self, index: int) -> Term:
        """Return an input field."""
        return Term(index, (0,) * self.dim)

    def add(self, first: Term, second: Term) -> Term:
        """Return the sum of two terms."""
        if (second.node, second.offset) < (first.node, first.offset):
            first, second = second, first
        if (second.node, second.offset) == (first.node, first.offset):
            return Term(first.node, first.offset, first.factor + second.factor)
        ratio = second.factor / first.factor
        node = ShiftedSum(first.node, second.node, _minus(second.offset, first.offset), ratio)
        return Term(self._place(node), first.offset, first.factor)

    def total(self, terms: Sequence[Term]) -> Term:
        """Return the sum of one or more terms."""
        result = terms[0]
        for term in terms[1:]:
            result = self.add(result, term)
        return result

    def difference(self, term: Term, axis: int, *, ahead: bool) -> Term:
        """Return f(v + 1) - f(v) along an axis, or f(v) - f(v - 1)."""
        low, high = (term, term.shifted(axis, 1)) if ahead else (term.shifted(axis, -1), term)
        return self.add(high, low.times(-1.0))

    def product(self, term: Term, weight: int) -> Term:
        """Return a term times a weight field."""
        node = self._place(WeightedShift(term.node, term.offset, weight))
        return Term(node, (0,) * self.dim, term.factor)

    def transposed(self, seeds: Sequence[tuple[Term, Term]]) -> list[Term]:
        """Return what the transpose of inputs -> terms makes of the terms' partners.

        `seeds` are pairs (term, its partner); the terms are made by sums alone. One result per
        input that a term depends on.
        """
        found: dict[int, Term] = {}
        for term, partner in seeds:
            offset = _minus(partner.offset, term.offset)
            factor = partner.factor * term.factor
            self._collect(found, term.node, Term(partner.node, offset, factor))
        for number in range(max(found), self.inputs - 1, -1):
            node = self.nodes[number]
            if number in found and isinstance(node, ShiftedSum):
                own = found.pop(number)
                self._collect(found, node.first, own)
                offset = _minus(own.offset, node.offset)
                self._collect(found, node.second, Term(own.node, offset, own.factor * node.ratio))
        return [found[number] for number in sorted(found)]

    def _collect(self, found: dict[int, Term], number: int, term: Term) -> None:
        found[number] = self.add(found[number], term) if number in found else term

    def _place(self, node: Node) -> int:
        if node not in self._known:
            self._known[node] = self.inputs + len(self.nodes)
            self.nodes[self._known[node]] = node
        return self._known[node]


def _minus(a: Offset, b: Offset) -> Offset:
    return tuple(x - y for x, y in zip(a, b, strict=True))

"""Run a graph of shifted sums on periodic fields, slab by slab of rows that stay in cache.

Fields lie with a halo in one flat array each, where a shift along any axis is a constant distance
in memory, so that every node of the graph is one pass over contiguous memory.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from physics.mechanics.shift_graph import Offset, ShiftedSum, ShiftGraph, Term

HALO = 2
"""Voxels by which an output may look beyond its own, along each axis."""

SLAB_VALUES = {2: 16384, 3: 65536}
"""Values of one node that a slab works on, per dimension: in 3-D slabs overlap by more."""


class ShiftProgram:
    """A graph's outputs on a batch of periodic fields `(batch, load, input, *space)`.

    The inputs are those that the outputs depend on, in their order. Weights have the batch first.
    """

    def __init__(
        self,
        graph: ShiftGraph,
        outputs: Sequence[Term],
        weights: Sequence[Float[Tensor, "batch *space"]],
        shape: tuple[int, ...],
        *,
        loads: int,
        like: Float[Tensor, "batch ..."],
    ) -> None:
        """Lay out the fields and record all passes; `like` gives batch, precision and device."""
        self._source = (graph, outputs, weights, shape, loads, like)
        self._graph, self._outputs, self._shape = graph, outputs, shape
        dim = len(shape)
        self._padded = [n + 2 * HALO for n in shape]
        self._strides = [prod(self._padded[axis + 1 :]) for axis in range(dim)]
        self._margin = HALO * sum(self._strides[1:])
        self._reach = self._reaches()
        used = [number for number in sorted(self._reach) if number < graph.inputs]
        size = prod(self._padded) + 2 * self._margin
        flat = like.new_zeros(len(like), loads, len(used), size)
        self._inputs = dict(zip(used, flat.unbind(2), strict=True))
        halo = flat[..., self._margin : -self._margin].unflatten(-1, self._padded)
        self._interior = halo[(..., *[slice(HALO, -HALO)] * dim)]
        self._wraps = [
            (halo.narrow(axis, to, HALO), halo.narrow(axis, start, HALO))
            for axis, n in zip(range(-dim, 0), shape, strict=True)
            for to, start in ((0, n), (n + HALO, HALO))
        ]
        self._weights = [self._flat_weight(weight) for weight in weights]
        self._result = like.new_empty(len(like), loads, len(outputs), *shape)
        self._passes: list[Callable[[], object]] = []
        self._record()

    def __call__(
        self, field: Float[Tensor, "batch load input *space"], /
    ) -> Float[Tensor, "batch load output *space"]:
        """Return the outputs, in a buffer that the next call overwrites."""
        self._interior.copy_(field)
        for target, source in self._wraps:
            target.copy_(source)
        for step in self._passes:
            step()
        return self._result

    def select(self, keep: Tensor, /) -> "ShiftProgram":
        """Return the program of some samples."""
        graph, outputs, weights, shape, loads, like = self._source
        kept = [weight[keep] for weight in weights]
        return ShiftProgram(graph, outputs, kept, shape, loads=loads, like=like[keep])

    def _flat_weight(self, weight: Tensor) -> Tensor:
        sides = (HALO, HALO) * len(self._shape)
        halo = pad(weight.unsqueeze(1), sides, mode="circular")
        return pad(halo.flatten(2), (self._margin, self._margin))

    def _distance(self, offset: Offset) -> int:
        return sum(o * stride for o, stride in zip(offset, self._strides, strict=True))

    def _reaches(self) -> dict[int, tuple[int, int]]:
        """Return, per node that is needed, how far beyond a slab it is read on either side."""
        reach: dict[int, tuple[int, int]] = {}

        def demand(number: int, low: int, high: int) -> None:
            known = reach.get(number, (low, high))
            reach[number] = (min(low, known[0]), max(high, known[1]))

        for term in self._outputs:
            demand(term.node, *[self._distance(term.offset)] * 2)
        for number, node in reversed(self._graph.nodes.items()):
            if number in reach:
                low, high = reach[number]
                for source, offset in node.sources:
                    step = self._distance(offset)
                    demand(source, low + step, high + step)
        return reach

    def _record(self) -> None:
        rows = self._shape[0]
        fields = self._result.shape[0] * self._result.shape[1]
        count = 1
        if self._result.device.type == "cpu":
            slab = round(SLAB_VALUES[len(self._shape)] / (fields * self._strides[0]))
            count = max(1, rows // max(HALO, slab))
        cuts = [rows * i // count for i in range(count + 1)]
        longest = max(b - a for a, b in pairwise(cuts)) * self._strides[0]
        width = longest + max(high - low for low, high in self._reach.values())
        pool: list[Tensor] = []
        for first, last in pairwise(cuts):
            self._record_slab(first, last, pool, width)

    def _record_slab(self, first: int, last: int, pool: list[Tensor], width: int) -> None:
        """Append the passes for rows `first` to `last`; buffers of the pool are used again."""
        begin, end = (self._margin + (HALO + row) * self._strides[0] for row in (first, last))
        last_reader = self._last_readers()
        free, buffers = list(pool), {}

        def read(number: int, low: int, high: int, offset: Offset) -> Tensor:
            step = self._distance(offset)
            if number < self._graph.inputs:
                return self._inputs[number][..., low + step : high + step]
            step -= begin + self._reach[number][0]
            return buffers[number][..., low + step : high + step]

        for number, node in self._graph.nodes.items():
            if number not in self._reach:
                continue
            if not free:
                pool.append(self._result.new_empty(*self._result.shape[:2], width))
                free.append(pool[-1])
            buffers[number] = free.pop()
            low, high = begin + self._reach[number][0], end + self._reach[number][1]
            target = buffers[number][..., : high - low]
            operands = [read(source, low, high, offset) for source, offset in node.sources]
            if isinstance(node, ShiftedSum):
                self._passes.append(_sum(operands[0], operands[1], node.ratio, target))
            else:
                weight = self._weights[node.weight][..., low:high]
                self._passes.append(_multiplication(operands[0], weight, target))
            for source in {source for source, _ in node.sources} & buffers.keys():
                if last_reader[source] == number:
                    free.append(buffers.pop(source))
        for k, term in enumerate(self._outputs):
            rows = read(term.node, begin, end, term.offset).unflatten(-1, (-1, *self._padded[1:]))
            inner = rows[(..., *[slice(HALO, -HALO)] * (len(self._shape) - 1))]
            target = self._result[:, :, k, first:last]
            self._passes.append(_multiplication(inner, term.factor, target))

    def _last_readers(self) -> dict[int, int]:
        """Return, per node, the last one that reads it; outputs are read at the very end."""
        readers: dict[int, int] = {}
        for number, node in self._graph.nodes.items():
            if number in self._reach:
                readers |= {source: number for source, _ in node.sources}
        return readers | {term.node: -1 for term in self._outputs}


def _sum(a: Tensor, b: Tensor, ratio: float, target: Tensor) -> Callable[[], object]:
    if ratio == 1.0:
        return lambda: torch.add(a, b, out=target)
    if ratio == -1.0:
        return lambda: torch.sub(a, b, out=target)
    return lambda: torch.add(a, b, alpha=ratio, out=target)


def _multiplication(a: Tensor, b: Tensor | float, target: Tensor) -> Callable[[], object]:
    return lambda: torch.mul(a, b, out=target)

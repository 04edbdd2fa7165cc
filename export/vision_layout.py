"""Which patch row each image token comes from, computed inside the vision graph from `image_sizes` alone.

The reference loops over pictures and reshapes each crop grid. Here every output token computes the row it copies from
one bank of rows, so any number of pictures with any mix of grids goes through one gather. The bank holds 12 x 12 rows
a crop (crops of all pictures one after the other, each picture's global crop first), then `sub_GN`, then `glb_GN`.
"""

from __future__ import annotations

import onnx_ir as ir

from ..hd import CROP
from .dims import PATCHES
from .graph import GraphWriter

SIDE = PATCHES // 2
"""Tokens along a crop's side after the 2 x 2 merge."""

_CROP_ROWS = SIDE * SIDE


class LayoutWriter:
    """Writes the integer arithmetic of the HD layout ("sub_glb") into a graph. All values are int64."""

    def __init__(self, graph: GraphWriter, image_sizes: ir.Value) -> None:
        self._graph = graph
        grid = graph.op("Div", image_sizes, graph.scalar(CROP))
        self.high = graph.op("Gather", grid, graph.scalar(0), axis=1)
        self.wide = graph.op("Gather", grid, graph.scalar(1), axis=1)
        self.crops = self._add(self._mul(self.high, self.wide), 1)

    def real_crops(self, slots: ir.Value) -> ir.Value:
        """Indices of the crops that are no padding, in the flattened [pictures * slots] crops; `slots` is a scalar."""
        graph = self._graph
        slot = graph.op("Range", graph.scalar(0), slots, graph.scalar(1))
        real = graph.op("Less", slot, graph.op("Unsqueeze", self.crops, graph.ints(1)))
        flat = graph.op("Reshape", real, graph.ints(-1))
        return graph.op("Squeeze", graph.op("NonZero", flat), graph.ints(0))

    def token_rows(self, patch_rows: ir.Value) -> ir.Value:
        """Bank row of every image token [T]; `patch_rows` (scalar) counts the bank's rows before the separators."""
        line = self._add(self._mul(self.wide, SIDE), 1)
        sub_tokens = self._mul(self._mul(self.high, SIDE), line)
        tokens = self._add(sub_tokens, 1 + SIDE * (SIDE + 1))
        end = self._graph.op("CumSum", tokens, self._graph.scalar(0))
        first_crop = self._sub(self._graph.op("CumSum", self.crops, self._graph.scalar(0)), self.crops)
        token, picture = self._tokens(end)

        def of_picture(values: ir.Value) -> ir.Value:
            return self._graph.op("Gather", values, picture, axis=0)

        place = self._sub(token, of_picture(self._sub(end, tokens)))
        subs, crop = of_picture(sub_tokens), of_picture(first_crop)
        sub_row = self._sub_row(place, crop, of_picture(self.wide), patch_rows)
        global_row = self._global_row(self._sub(place, self._add(subs, 1)), crop, patch_rows)
        after = self._where("Equal", place, subs, self._add(patch_rows, 1), global_row)
        return self._where("Less", place, subs, sub_row, after)

    def _tokens(self, end: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Number of every token, and of the picture it belongs to."""
        graph = self._graph
        total = graph.op("Squeeze", graph.op("Gather", end, graph.ints(-1), axis=0), graph.ints(0))
        token = graph.op("Range", graph.scalar(0), total, graph.scalar(1))
        past = graph.op("GreaterOrEqual", graph.op("Unsqueeze", token, graph.ints(1)), end)
        counted = graph.op("Cast", past, to=int(ir.DataType.INT64))
        return token, graph.op("ReduceSum", counted, graph.ints(1), keepdims=0)

    def _sub_row(self, place: ir.Value, crop: ir.Value, wide: ir.Value, separator: ir.Value) -> ir.Value:
        """Row of a token in the sub-crop picture; the last of every line is `sub_GN`."""
        line = self._add(self._mul(wide, SIDE), 1)
        row, column = self._div(place, line), self._mod(place, line)
        grid = self._add(self._mul(self._div(row, SIDE), wide), self._div(column, SIDE))
        first = self._mul(self._add(self._add(crop, 1), grid), _CROP_ROWS)
        inside = self._add(self._mul(self._mod(row, SIDE), SIDE), self._mod(column, SIDE))
        return self._where("Equal", column, self._sub(line, 1), separator, self._add(first, inside))

    def _global_row(self, place: ir.Value, crop: ir.Value, separator: ir.Value) -> ir.Value:
        """Row of a token in the global crop; the last of every line is `sub_GN`."""
        row, column = self._div(place, SIDE + 1), self._mod(place, SIDE + 1)
        inside = self._add(self._mul(row, SIDE), column)
        patch = self._add(self._mul(crop, _CROP_ROWS), inside)
        return self._where("Equal", column, SIDE, separator, patch)

    def _where(self, test: str, a: ir.Value, b: ir.Value | int, yes: ir.Value, no: ir.Value) -> ir.Value:
        return self._graph.op("Where", self._binary(test, a, b), yes, no)

    def _binary(self, kind: str, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self._graph.op(kind, a, self._graph.scalar(b) if isinstance(b, int) else b)

    def _add(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self._binary("Add", a, b)

    def _sub(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self._binary("Sub", a, b)

    def _mul(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self._binary("Mul", a, b)

    def _div(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self._binary("Div", a, b)

    def _mod(self, a: ir.Value, b: ir.Value | int) -> ir.Value:
        return self._binary("Mod", a, b)

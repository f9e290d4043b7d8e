"""A head that shares the table of an embedding: two ways to multiply with it, both with one copy.

The table stands as rows, [vocabulary, d]. `loopedge.graph.passes.layout` multiplies it from the left and turns
the result: x W^T = (W x^T)^T. A left operand is never packed, but the scores of all words exist twice
for a moment. ``com.microsoft.FusedMatMul`` reads the rows turned and gives the scores at once; where weights
are packed it would pack the table, a second copy. So it is for the memory profile `low`.
"""

import onnx_ir as ir

from loopedge.graph.editing import make_node, replace_node
from loopedge.graph.split.hidden_chunks import EXPECTED_LENGTH, LEAST_BYTES

__all__ = ["MICROSOFT", "read_table_in_place", "turn_scores"]

MICROSOFT = "com.microsoft"


def read_table_in_place(
    model: ir.Model, *, length: int | None = None, least_bytes: int = LEAST_BYTES
) -> bool:
    """Replace Transpose, MatMul(table, .), Transpose by one FusedMatMul, in place.

    Requires: a float table; the graph is finished: other passes do not know the operator.

    Ensures: the table is stored as it was; ``com.microsoft`` is among the opsets where a head was replaced.

    Args:
        model: Any form.
        length: Positions that an inference is expected to have; default: 128.
        least_bytes: A head whose scores take less at that length stays as it is.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "MatMul" or node.domain or len(node.outputs[0].uses()) != 1:
            continue
        table, turned = node.inputs
        turn = None if turned is None else turned.producer()
        (back,) = node.outputs[0].consumers()
        if table is None or table.const_value is None or len(table.const_value.shape) != 2:
            continue
        if table.const_value.dtype != ir.DataType.FLOAT or turn is None or not _swaps(turn):
            continue
        if not _swaps(back) or node.outputs[0].is_graph_output():
            continue
        if 4 * int(table.const_value.shape.numpy()[0]) * (length or EXPECTED_LENGTH) < least_bytes:
            continue
        attributes = {"transB": 1, "alpha": 1.0}
        name = node.name or "MatMul"
        new = make_node("FusedMatMul", [turn.inputs[0], table], name, attributes, domain=MICROSOFT)
        replace_node(back, [new])
        for old in (node, turn):
            if old.graph is not None and not old.outputs[0].uses():
                old.graph.remove(old, safe=True)
        changed = True
    if changed:
        model.graph.opset_imports.setdefault(MICROSOFT, 1)
    return changed


def turn_scores(model: ir.Model) -> bool:
    """Undo `read_table_in_place`, in place.

    Requires: the rank of what a head reads is known; one without is left alone.

    Ensures: ``com.microsoft`` is no longer among the opsets where nothing else needs it.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type != "FusedMatMul" or node.domain != MICROSOFT or not _reads_rows(node):
            continue
        x, table = node.inputs
        if x is None or table is None or table.const_value is None or x.shape is None:
            continue
        rank = len(x.shape)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        name = node.name or "MatMul"
        turn = make_node("Transpose", [x], f"{name}.turn", {"perm": perm})
        product = make_node("MatMul", [table, turn.outputs[0]], name)
        back = make_node("Transpose", [product.outputs[0]], f"{name}.back", {"perm": perm})
        replace_node(node, [turn, product, back])
        changed = True
    if changed and not any(node.domain == MICROSOFT for node in model.graph.all_nodes()):
        model.graph.opset_imports.pop(MICROSOFT, None)
    return changed


def _swaps(node: ir.Node) -> bool:
    """Tell a Transpose of the last two axes."""
    if node.op_type != "Transpose" or node.domain or "perm" not in node.attributes:
        return False
    perm = list(node.attributes["perm"].as_ints())
    rank = len(perm)
    return rank >= 2 and perm == [*range(rank - 2), rank - 1, rank - 2]


def _reads_rows(node: ir.Node) -> bool:
    said = {name: attribute.value for name, attribute in node.attributes.items()}
    return said.pop("transB", 0) == 1 and said.pop("alpha", 1.0) == 1.0 and not any(said.values())

"""The opsets that are written, each with the oldest file format that can name it."""

from collections.abc import Mapping

import onnx_ir as ir

from loopedge.errors import VerificationError

__all__ = ["IR_VERSIONS", "check_versions"]

IR_VERSIONS = {18: 8, 20: 9, 21: 10, 22: 10, 23: 11}
"""Opset to IR version, of the ONNX release that brought the opset: an older runtime refuses a newer
format, whatever operators it holds. docs/reach.md lists which runtime loads what."""


def check_versions(model: ir.Model, opset: int, others: Mapping[str, int] | None = None) -> None:
    """Hold that a file that was read back is what was asked for.

    Args:
        model: What it holds.
        opset: Of ONNX's own operators.
        others: Further domains that its operators are of, with their versions.

    Raises:
        VerificationError: It has another opset or IR version, or operators of other domains.
    """
    found = dict(model.opset_imports)
    if found != {"": opset} | dict(others or {}) or model.ir_version != IR_VERSIONS[opset]:
        raise VerificationError(
            f"the file has opsets {found} and IR version {model.ir_version}, asked for was opset "
            f"{opset} and IR version {IR_VERSIONS[opset]}"
        )

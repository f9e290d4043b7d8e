"""Weights alone in blocks of 8, 4 or 2 bits (`loopedge.graph.integer_weights.block_weights`): no calibration."""

from collections.abc import Sequence

from loopedge.errors import InputError
from loopedge.options import option, option_name

__all__ = [
    "WEIGHT_BITS",
    "check_weight_options",
]

WEIGHT_BITS = {"weight-int8": 8, "weight-int4": 4, "weight-int2": 2}
"""The schemes, and the bits of their weights."""


def check_weight_options(
    scheme: str, names: Sequence[str], *, ranges: bool, ops: str, reduce_range: bool
) -> None:
    """Refuse options that weight-only linears cannot take.

    Args:
        scheme: Of the whole model.
        names: Linears that are weight-only whatever the scheme.
        ranges: Whether calibrated ranges are given.
        ops: Asked operators.
        reduce_range: Whether weights of seven bits are asked for.

    Raises:
        InputError: An option has no meaning.
    """
    if ops != "microsoft":
        raise InputError(
            "weight-only linears have no standard form: ONNX Runtime refuses a blocked "
            "DequantizeLinear in a loop whose weight stands outside",
            hint=option("ops", "microsoft"),
        )
    if scheme not in WEIGHT_BITS:
        if not names:
            raise InputError(
                f"scheme {scheme} has no blocks: a block size is for weight-only linears",
                hint=f"{option('scheme', 'weight-int8')}, or {option('weight_only', 'LINEAR')}",
            )
        return
    if ranges:
        raise InputError(
            f"{scheme} rounds no activations: it takes no ranges",
            hint=f"leave out {option_name('ranges')}",
        )
    if reduce_range:
        raise InputError(
            f"seven bits are for the products of static and dynamic, {scheme} has others",
            hint=f"leave out {option('reduce_range')}",
        )

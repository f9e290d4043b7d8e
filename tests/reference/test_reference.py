"""Every kind of artifact, computed by `onnx.reference`: another program, from the specification of the operators."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from benchmarks.reach.kinds import KINDS, Kind, write_kind
from loopedge.graph.agreement import TOLERANCE
from tests.parity.models import FLIPS, noise_share, relative_error
from tests.reference.microsoft_operators import OPERATORS

FAR_APART = 0.5
"""Of the noise where a linear is weight-only: its kernel rounds activations in blocks or, unpacked, not at all."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind.export else [])
        for kind in KINDS.values()
    ],
    ids=lambda kind: kind.name,
)
def test_the_reference_computes_what_onnxruntime_does(kind: Kind, folder: Path) -> None:
    written = write_kind(kind, folder)
    model = onnx.load(written.path)
    evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
    in_blocks = b"MatMulNBits" in model.SerializeToString()
    values = evaluator.run(None, written.feeds)
    outputs = dict(zip(evaluator.output_names, values, strict=True))
    assert set(outputs) == set(written.expected)
    for name, expected in written.expected.items():
        given = np.asarray(outputs[name])
        assert given.dtype == expected.dtype
        if expected.dtype.kind in "iu":
            np.testing.assert_array_equal(given, expected)
        elif kind.quantize is None:
            assert relative_error(given, expected) < TOLERANCE
        else:
            share = noise_share(given, expected, written.exact[name])
            assert share < (FAR_APART if in_blocks else FLIPS)

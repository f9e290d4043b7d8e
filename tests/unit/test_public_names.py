"""What ``import loopedge`` offers, and that its help is short enough to be read."""

import pydoc
import re

import pytest

import loopedge

NAMES = {
    *(
        "ConvertResult",
        "ExportResult",
        "Generator",
        "Inspection",
        "PilotResult",
        "PrepareResult",
        "ProfileResult",
    ),
    *(
        "QuantizeResult",
        "TrainResult",
        "LoopedConfig",
        "LoopedModule",
        "LoopedTransformer",
        "Session",
    ),
    *("Task", "convert", "export", "inner_loop", "inspect", "load", "pilot", "prepare", "profile"),
    *("quantize", "save", "train", "Comparison", "PilotOptions", "ProfileOptions", "compare"),
    *("ExportOptions", "QuantizeOptions", "RerollResult", "reroll", "UnrollResult", "unroll"),
    *("GenerateResult", "attention", "to_generate"),
    *("EvaluateResult", "evaluate", "Forecast", "forecast"),
    *("DiagnoseOptions", "Diagnosis", "diagnose"),
    *("PackageOptions", "PackageResult", "package"),
}
TWO_SCREENS = 66
"""Lines."""


def test_the_names_of_the_library() -> None:
    for name in NAMES:
        assert getattr(loopedge, name) is not None
    public = {name for name in dir(loopedge) if not name.startswith("_")}
    assert public >= NAMES
    assert set(loopedge._HOMES) == NAMES
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        loopedge.fly  # noqa: B018


def test_the_help_fits_on_two_screens_and_names_everything() -> None:
    for name in NAMES:  # also once everything has been loaded
        getattr(loopedge, name)
    text = pydoc.plain(pydoc.render_doc(loopedge))
    assert len(text.splitlines()) <= TWO_SCREENS
    assert set(re.findall(r"\w+", str(loopedge.__doc__))) >= NAMES

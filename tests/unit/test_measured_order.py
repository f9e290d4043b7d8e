"""The measured process is pinned once its runtime is imported: ONNX Runtime looks at the cores then."""

from typing import Any

import pytest

from loopedge.profiler.child import main


def test_the_runtime_is_imported_before_the_process_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[Any] = []

    class Loads:
        def load(self) -> str:
            happened.append("loaded")
            raise RuntimeError("that is all")

    def imports(request: dict[str, Any]) -> Loads:
        happened.append("imported")
        return Loads()

    monkeypatch.setattr(main, "_runtime", imports)
    monkeypatch.setattr(main, "pin", lambda threads: happened.append(("pinned", threads)))
    monkeypatch.setattr(main, "reset_peak", lambda: None)
    with pytest.raises(RuntimeError, match="that is all"):
        main._serve({"threads": 3}, lambda message: None)
    assert happened == ["imported", ("pinned", 3), "loaded"]

"""What the programs ``bench`` of a bundle print: read with holes, compared with a profile and with each other."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopedge.errors import InputError
from loopedge.files.plain_json import dump_json
from loopedge.profiler.client_report import ClientReport
from loopedge.profiler.comparison.pipeline import compare
from loopedge.profiler.result import SCHEMA_VERSION
from loopedge.profiler.result_file import profile_schema, read_profile, read_report, schema_text
from loopedge.report.comparison_table import comparison_table
from tests.unit.json_schema import problems
from tests.unit.profiles import MACHINE, make_result, make_run

SCHEMA = Path(__file__).parents[2] / "docs" / "client_report.schema.json"
LATENCY = {"p50": 480.0, "p95": 500.0, "p99": 510.0, "mean": 482.0, "min": 470.0, "runs": 20}


def client_run(**changed: Any) -> dict[str, Any]:
    """Return a run as a browser prints it: most of it is null."""
    fields: dict[str, Any] = {
        "name": "tmlt.onnx",
        "path": "models/tmlt.onnx",
        "runtime": "onnxruntime-web",
        "provider": "CPUExecutionProvider",
        "form": "loop",
        "quantization": None,
        "loops": 12,
        "batch": 1,
        "sequence": 128,
        "threads": 1,
        "memory": None,
        "processes": 1,
        "file_bytes": 43_411_046,
        "weight_bytes": 43_201_331,
        "load_seconds": 0.4,
        "rss_load_bytes": None,
        "anon_bytes": None,
        "rss_peak_bytes": None,
        "heap_bytes": 20 * 2**20,
        "latency_ms": LATENCY,
        "output_error": 3e-7,
        "spread": None,
    }
    return {**fields, **changed}


def client_report(client: str = "web", *runs: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return a report as it is printed."""
    machine = {
        "cpu": None,
        "cores": 4,
        "system": "Linux x86_64",
        "memory_bytes": None,
        "onnxruntime": "1.32.0",
        "host": "Chromium 142",
        "loopedge": MACHINE["loopedge"],
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "client": client,
        "created": None,
        "machine": machine,
        "limits": None,
        "runs": list(runs) or [client_run()],
        "failures": [],
        "notes": [],
        **changed,
    }


def written(folder: Path, fields: dict[str, Any], name: str = "device.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path


def test_a_report_is_read_and_null_means_left_out(tmp_path: Path) -> None:
    full = read_report(written(tmp_path, client_report()))
    assert isinstance(full, ClientReport)
    (run,) = full.runs
    assert (run.rss_peak_bytes, run.heap_bytes, run.spread) == (None, 20 * 2**20, {})
    plain = client_report()
    for key in ("created", "limits", "failures", "notes"):
        del plain[key]
    plain["runs"] = [{key: value for key, value in client_run().items() if value is not None}]
    assert read_report(written(tmp_path, plain)) == full


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"client": "phone"}, "client: Input should be 'web', 'node', 'c' or 'python'"),
        ({"schema_version": 99}, "has schema version 99"),
        ({"machine": None}, "machine: Field required"),
        ({"runs": [client_run(latency_ms=None)]}, "runs.0.latency_ms: Field required"),
        ({"runs": [client_run(name=None)]}, "runs.0.name: Field required"),
        ({"runs": [client_run(threads="one")]}, "runs.0.threads: Input should be a valid integer"),
    ],
)
def test_what_a_report_must_say(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_report(written(tmp_path, client_report(**changed)))
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_a_profile_is_not_a_report_and_the_other_way_round(tmp_path: Path) -> None:
    profile = written(tmp_path, json.loads(dump_json(make_result(make_run()).to_json())))
    assert read_report(profile) == make_result(make_run()) == read_profile(profile)
    with pytest.raises(InputError, match="is the report of the client c, a profile is needed"):
        read_profile(written(tmp_path, client_report("c")))


def test_the_schema_in_docs_is_that_of_the_types() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(ClientReport), (
        "write it again as loopedge/profiler/result_file.py says"
    )
    schema = profile_schema(ClientReport)
    plain = client_report(created="2026-11-30T22:00:00+00:00", limits=[])
    plain["runs"] = [client_run(spread={})]
    assert problems(plain, schema) == []


def compared(tmp_path: Path, report: dict[str, Any], *runs: Any) -> Any:
    (tmp_path / "w.json").write_text(dump_json(make_result(*runs).to_json()))
    return compare(tmp_path / "w.json", written(tmp_path, report))


def test_a_report_stands_beside_the_profile_of_the_workstation(tmp_path: Path) -> None:
    twin = make_run("tmlt.onnx (untied)", path="tmlt.onnx", twin="untied")
    found = compared(tmp_path, client_report(), make_run(p50=240.0), twin)
    assert (found.before_client, found.after_client) == (None, "web")
    (run,) = found.runs
    assert run.differences == {"runtime": ["onnxruntime", "onnxruntime-web"]}
    changes = {change.figure: change for change in run.changes}
    assert changes["latency_ms.p50"].ratio == pytest.approx(2.0)
    assert set(changes) == {"file_bytes", "weight_bytes", "latency_ms.p50", "load_seconds"}
    assert not any(change.judged for change in run.changes)
    assert found.gone == ["tmlt.onnx (untied)"]
    assert found.cautions[0] == (
        "Loopedge profile measured the first, the client web of a bundle the second: nothing is judged."
    )
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(comparison_table(found))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "loopedge profile web ratio" in lines
    assert "runtime onnxruntime onnxruntime-web" in lines
    assert "median latency 240 ms 480 ms 2.00x" in lines


@pytest.mark.parametrize(
    ("changed", "belongs"),
    [
        ({"name": "tmlt.ort", "path": "models/tmlt.ort"}, True),
        ({"name": "other.onnx"}, False),
        ({"sequence": 64}, False),
        ({"loops": 6}, False),
        ({"loops": None, "sequence": None}, True),
        ({"batch": 2}, False),
        ({"threads": 4, "provider": "WebGpuExecutionProvider", "memory": "low"}, True),
    ],
)
def test_runs_belong_together_by_file_and_work(
    changed: dict[str, Any], belongs: bool, tmp_path: Path
) -> None:
    report = client_report("node", client_run(**changed))
    if belongs:
        assert len(compared(tmp_path, report, make_run()).runs) == 1
        return
    with pytest.raises(InputError, match="no run in common: same name of the file, batch"):
        compared(tmp_path, report, make_run())


def test_of_several_runs_that_of_as_many_threads_is_taken(tmp_path: Path) -> None:
    runs = [make_run(threads=1, p50=100.0), make_run(threads=4, p50=50.0)]
    found = compared(tmp_path, client_report("c", client_run(threads=4)), *runs)
    (run,) = found.runs
    assert next(c.before for c in run.changes if c.figure == "latency_ms.p50") == 50.0
    assert "threads" not in run.differences


def test_machines_differ_by_what_both_say(tmp_path: Path) -> None:
    report = client_report("node")
    report["machine"] |= {"cpu": "ARM Cortex-A76", "system": "Linux aarch64"}
    found = compared(tmp_path, report, make_run())
    assert not found.same_machine
    assert found.cautions[1].startswith("The machines differ in cpu (")
    assert found.cautions[1].endswith(": times are those of either machine.")
    assert "host" not in " ".join(found.cautions)


def test_two_reports_of_one_client_are_judged_as_profiles_are(tmp_path: Path) -> None:
    before = written(tmp_path, client_report("c"), "before.json")
    grown = client_report("c", client_run(file_bytes=50_000_000, heap_bytes=30 * 2**20))
    found = compare(before, written(tmp_path, grown), max_regression=0.05)
    assert {item.figure for item in found.regressions} == {"file_bytes", "heap_bytes"}
    assert found.before_client == found.after_client == "c"


def test_two_clients_do_not_judge_each_other(tmp_path: Path) -> None:
    one = written(tmp_path, client_report("c"), "c.json")
    other = written(tmp_path, client_report("web"))
    assert len(compare(one, other).runs) == 1
    with pytest.raises(InputError, match="the client c of a bundle measured the first, the client"):
        compare(one, other, max_regression=0.05)
    assert replace(compare(one, other), runs=[]).to_json()["after_client"] == "web"

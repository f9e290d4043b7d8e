"""Figures that docs repeat are those that a benchmark wrote: retyped wrongly, or left behind by a new run, they fail here."""

import json
from pathlib import Path

import pytest

from loopedge.study.result_file import read_pilot
from tests.docs.pages import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def rows_after(text: str, head: str) -> dict[str, list[str]]:
    """Return the cells of the table that begins with ``head``, by the first cell of each row."""
    table = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[1:] for row in cells}


def test_the_page_of_diagnose_repeats_its_benchmark() -> None:
    head = "| score, from data alone |"
    shown = rows_after((ROOT / "docs" / "diagnose.md").read_text("utf-8"), head)
    measured = rows_after((RESULTS / "diagnose" / "moduli.md").read_text("utf-8"), head)
    assert len(shown) == 7
    for name, figures in shown.items():
        kind, _, windows = name.partition(", ")
        assert figures == measured[f"far {kind}" if windows == "any windows" else kind]


def test_the_page_of_the_paper_repeats_its_benchmark() -> None:
    page = (ROOT / "docs" / "paper.md").read_text("utf-8")
    results = (RESULTS / "paper" / "results.md").read_text("utf-8")
    shown = rows_after(page, "| arm | edit distance | LCS |")
    assert len(shown) == 6
    for place, task in enumerate(("Edit distance", "Longest common subsequence")):
        part = results[results.index(f"## Norms or timestep? {task}") :]
        measured = rows_after(part, "| arm | 16 loops |")
        for arm, figures in shown.items():
            _, prefixes, norms = measured[arm.removesuffix(" (with the norms)")]
            assert figures[place] == f"{float(prefixes):.3f}"
            if task == "Edit distance":
                assert figures[2] == norms.partition(",")[0]


def test_the_page_of_profiling_repeats_its_benchmark_of_providers() -> None:
    page = (ROOT / "docs" / "profiling.md").read_text("utf-8")
    results = (RESULTS / "providers" / "openvino.md").read_text("utf-8")
    shown = rows_after(page, "| file | CPU, of the first |")
    measured = rows_after(results, "| file | MiB |")
    assert len(shown) == 10
    assert list(shown) == list(measured)
    for name, figures in shown.items():
        _, _, ratio, nodes, sqnr, needed, of_cpu, of_first, *_ = measured[name]
        if nodes.startswith("refused"):
            assert figures[1].startswith("refused")
        else:
            assert figures == [ratio, nodes, sqnr, needed, of_cpu, of_first]


def test_the_page_of_profiling_repeats_what_denormals_cost() -> None:
    head = "| | ms with denormals |"
    shown = rows_after((ROOT / "docs" / "profiling.md").read_text("utf-8"), head)
    measured = rows_after((RESULTS / "int8" / "denormals.md").read_text("utf-8"), head)
    assert len(shown) == 4
    assert shown == measured


def test_the_page_of_quantization_repeats_where_products_wait() -> None:
    page = (ROOT / "docs" / "quantization.md").read_text("utf-8")
    text = " ".join(page[page.index("**A processor with AMX.**") :].split("\n\n")[1].split())
    results = (RESULTS / "int8" / "cold_products.md").read_text("utf-8")
    table = results[results.index("| product |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    best = {tuple(row[:3]): float(row[3]) for row in cells}
    cold, hot = (best["MLAS, uint8 x int8", "at loading", count] for count in ("12", "1"))
    assert f"take {cold:.0f} us a product, one weight that stays in the caches {hot:.0f}" in text
    other = (best["oneDNN, uint8 x int8", "at loading", count] for count in ("12", "1"))
    assert "takes {:.0f} and {:.0f}".format(*other) in text
    unpacked = best["MLAS, uint8 x int8", "at each run", "12"]
    assert f"{unpacked:.0f} us instead of {cold:.0f}" in text
    pinned = rows_after(
        (RESULTS / "int8" / "pinned.md").read_text("utf-8"), "| pinned to one core |"
    )
    before, after, never = (cell for (cell,) in pinned.values())
    assert (
        f"{before} us a product, {after} where it is pinned behind the import, {never} unpinned"
        in text
    )
    slow = [
        best[f"MLAS, {kinds}", "at loading", "1"] / hot
        for kinds in ("uint8 x uint8", "int8 x int8")
    ]
    assert "needs {:.0f} times as long for uint8 by uint8 and {:.0f} times".format(*slow) in text


PEERS = {
    "float32: `torch.onnx` + ONNX Runtime, unrolled": "torch.onnx + ONNX Runtime, unrolled",
    "OpenVINO": "OpenVINO",
    "OpenVINO in bfloat16": "OpenVINO in bfloat16, its default where the processor has it",
    "ExecuTorch, XNNPACK": "ExecuTorch, XNNPACK",
    "LiteRT, XNNPACK": "LiteRT, XNNPACK",
    "ggml-compiler": "ggml-compiler",
    "PyTorch, eager": "PyTorch, eager",
    "untied blocks, ONNX Runtime": "untied stack of blocks, ONNX Runtime",
    "**loopedge**, `--dynamic-loops`": "loopedge balanced, loop count selectable",
    "**loopedge**, `--memory low`": "loopedge low",
    "int8: ONNX Runtime, dynamic, preprocessed": "ONNX Runtime quantize_dynamic, after quant_pre_process",
    "ONNX Runtime, static, preprocessed": "ONNX Runtime quantize_static, after quant_pre_process",
    "OpenVINO + NNCF": "OpenVINO + NNCF",
    "LiteRT, dynamic": "LiteRT, AI Edge Quantizer, dynamic",
    "ExecuTorch, PT2E": "ExecuTorch, XNNPACK, PT2E",
    "ggml-compiler q8_0": "ggml-compiler q8_0",
    "**loopedge**, static, ranges per iteration": "loopedge int8 balanced",
    "**loopedge**, the same with `--memory low`": "loopedge int8 low",
}
"""Rows of docs/results.md, as the benchmark calls them."""


def peers_of(folder: Path) -> dict[str, list[str]]:
    """Return the rows of a result of the peers, without their names' stars."""
    text = (folder / "peers.md").read_text("utf-8")
    rows = rows_after(text, "| float | file MB |") | rows_after(text, "| int8 | file MB |")
    return {name.strip("*"): cells for name, cells in rows.items()}


def test_readme_and_results_show_the_peers_of_two_processors() -> None:
    epyc = peers_of(RESULTS / "peers")
    xeon = peers_of(RESULTS / "peers" / "xeon")
    labels = {
        "`torch.onnx` + ONNX Runtime, unrolled, float32": "torch.onnx + ONNX Runtime, unrolled",
        "the same block without tying, float32": "untied stack of blocks, ONNX Runtime",
        "**loopedge, float32**": "loopedge balanced, loop count selectable",
        "OpenVINO + NNCF, int8": "OpenVINO + NNCF",
        "LiteRT, int8": "LiteRT, AI Edge Quantizer, dynamic",
        "**loopedge, int8**": "loopedge int8 balanced",
    }
    shown = rows_after(
        (ROOT / "README.md").read_text("utf-8"), "| | file, MB | peak memory, MB: EPYC |"
    )
    assert set(shown) == set(labels)
    for name, (file, peak, other_peak, time, other_time) in shown.items():
        one, other = epyc[labels[name]], xeon[labels[name]]
        assert (file, peak, other_peak) == (one[0], one[4], other[4])
        assert (time, other_time) == (f"{float(one[5]):.2f}", f"{float(other[5]):.2f}")
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    heads = {"| | file MB | after load MB |": epyc, "| on an Intel Xeon with AMX |": xeon}
    for head, found in heads.items():
        table = rows_after(page, head)
        assert set(table) == set(PEERS)
        for name, (file, loaded, peak, time, product, chosen) in table.items():
            of = found[PEERS[name]]
            assert (file, loaded, peak, chosen) == (of[0], of[2], of[4], of[7])
            assert (time, product.strip("*")) == (f"{float(of[5]):.2f}", of[6])


def test_the_page_of_the_pilot_repeats_how_starts_do_at_the_published_width() -> None:
    page = " ".join((ROOT / "docs" / "pilot.md").read_text("utf-8").split())
    text = (RESULTS / "pilot" / "start.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| 768 |")]
    found = {cells[1]: cells[6:9] for cells in ([*line.strip("| ").split(" | ")] for line in lines)}
    published, fixed, scaled = found["sunspots"]
    words = (
        f"this start reaches {scaled}, the published one {published} and a fixed 0.125 only {fixed}"
    )
    assert words in page
    published, fixed, scaled = found["sorting"]
    words = f"reaches an accuracy of {published}, this one {scaled} and 0.125 {fixed}"
    assert words in page


@pytest.mark.parametrize("page", ["memory.md", "on_your_board.md"])
def test_pages_repeat_what_low_costs_on_a_processor_with_amx(page: str) -> None:
    text = (RESULTS / "memory" / "xeon" / "profiles.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if "| 12 | low |" in line]
    times = {cells[0]: cells[-1] for cells in rows}
    words = (
        "at 12 loops, {} in float32, {} in static int8 and {} with weights in blocks of eight bits"
    )
    shown = words.format(times["float32"], times["static int8"], times["weight-int8"])
    assert shown in (ROOT / "docs" / page).read_text("utf-8")


@pytest.mark.parametrize("name", ["seattle", "vowels", "pronunciation", "sunspots"])
def test_the_page_of_the_pilots_repeats_their_results(name: str) -> None:
    folder = ROOT / "examples" / "pilots"
    path = folder / name / "results.json"
    result, stored = read_pilot(path), json.loads(path.read_text("utf-8"))
    board = rows_after((folder / "README.md").read_text("utf-8"), "| pilot | data |")
    _, answer, baseline, model, minutes = board[f"[{name}]({name}/report.html)"]
    assert result.complete
    assert answer == result.verdict.outcome
    assert result.verdict.baseline is not None
    value = result.verdict.baseline["value"]
    assert baseline == f"{result.verdict.baseline['name']} {value:.4g}"
    row = next(place for place in result.leaderboard if model.startswith(place.name))
    assert row.test is not None
    assert model == f"{row.name} {row.test:.4g}"
    assert int(minutes) == round(result.seconds / 60)
    said = (folder / name / "report.html").read_text("utf-8")
    assert model.rpartition(" ")[0] in said
    assert stored["command"].partition(" -o ")[0].split()[2:] == command_of(name)


def command_of(name: str) -> list[str]:
    """Return the words of a pilot's command behind ``loopedge pilot``: in run.sh, or of sunspots in README.md."""
    file, output = (
        (ROOT / "README.md", "pilot")
        if name == "sunspots"
        else (ROOT / "examples" / "pilots" / "run.sh", name)
    )
    text = file.read_text("utf-8").replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.partition(f" -o {output}")[1])
    return line.partition(f" -o {output}")[0].split()[2:]


def test_the_page_of_bundles_repeats_what_int8_costs_in_a_browser() -> None:
    rows = json.loads((RESULTS / "clients" / "clients.json").read_text("utf-8"))["rows"]
    times = {
        row["scheme"]: row["min_ms"]
        for row in rows
        if (row["client"], row["form"], row["loops"]) == ("WebAssembly, in Node", "loop", 12)
    }
    ratio = {scheme: time / times["float32"] for scheme, time in times.items()}
    least, most = sorted(ratio[scheme] for scheme in ("static", "dynamic"))
    page = " ".join((ROOT / "docs" / "package.md").read_text("utf-8").split())
    assert f"they take {least:.1f} to {most:.1f} of the time of the float model" in page
    assert f"`weight-int8` takes {ratio['weight-int8']:.1f} times as long" in page

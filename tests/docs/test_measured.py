"""Figures that docs repeat are those that a benchmark wrote: retyped wrongly, or left behind by a new run, they fail here."""

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
    assert len(shown) == 7
    assert list(shown) == list(measured)
    for name, figures in shown.items():
        _, _, ratio, nodes, sqnr, needed, of_cpu, of_first, *_ = measured[name]
        if nodes.startswith("refused"):
            assert figures[1].startswith("refused")
        else:
            assert figures == [ratio, nodes, sqnr, needed, of_cpu, of_first]

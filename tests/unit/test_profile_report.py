"""The report of a profile: one offline file, a section for what was measured and none for what was not."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from loopedge.errors import InputError
from loopedge.profiler.result import ProfileResult
from loopedge.report.profile.html import write_profile_html
from loopedge.report.profile.sections.quantized import quantized_section
from loopedge.report.profile.sections.scaling import scaling_section
from loopedge.report.profile.sections.soak import soak_text
from loopedge.report.profile.sections.tradeoff import pareto_front, tradeoff_section
from loopedge.report.profile.terminal import profile_table
from loopedge.report.svg.axes import Axis
from loopedge.report.svg.chart import Mark, Series, chart
from tests.unit.profiles import (
    make_against_cpu,
    make_decoders,
    make_fidelity,
    make_forms,
    make_pair,
    make_result,
    make_run,
    make_soak,
    make_sources,
    make_sweep,
)

SECTIONS = (
    "Could not be measured",
    "Memory and time",
    "All figures",
    "Decoding",
    "What rounding does",
    "Against the loop count",
    "Latency against memory",
    "Memory by source",
    "Where the time goes",
    "Against the machine&#x27;s limits",
    "Over time",
    "GPU",
    "Against the CPU",
    "What the memory figures mean",
    "How it was measured",
)
ALWAYS = {"Memory and time", "All figures", "Where the time goes", *SECTIONS[-2:]}
VOID = {"meta"}
COMMAND = ["loopedge", "profile", "tmlt.onnx", "--untied"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(result: ProfileResult, folder: Path) -> str:
    target = folder / "report.html"
    write_profile_html(result, target, command=COMMAND, force=True)
    return target.read_text(encoding="utf-8")


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


@pytest.mark.parametrize("make", [make_sweep, make_forms, make_pair, make_decoders])
def test_the_page_is_one_well_formed_offline_file(make: object, tmp_path: Path) -> None:
    assert callable(make)
    page = page_of(make(), tmp_path)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe", "object"} & tags.seen
    assert not re.search(r"https?:|url\(|@import|\bnan\b|\binf\b|None", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "loopedge profile tmlt.onnx --untied" in page


def test_sections_without_data_do_not_appear(tmp_path: Path) -> None:
    assert set(headings(page_of(make_result(make_run()), tmp_path))) == {
        heading.replace("&#x27;", "'") for heading in ALWAYS
    }
    pages = [page_of(make(), tmp_path) for make in (make_sweep, make_forms, make_decoders)]
    found = {heading.replace("'", "&#x27;") for page in pages for heading in headings(page)}
    assert found == set(SECTIONS)
    assert not {"GPU", "Decoding"} & set(headings(pages[0]))


def test_a_provider_stands_against_the_cpu(tmp_path: Path) -> None:
    rounded = replace(make_forms().runs[0], name="m.onnx", path="m.onnx")
    exact = replace(rounded, against_cpu=make_against_cpu(limit_db=None, bfloat16_db=None))
    page = page_of(make_result(rounded, replace(exact, name="n.onnx", path="n.onnx")), tmp_path)
    text = re.sub(r"<[^>]+>", " ", page)
    text = " ".join(text.split())
    assert "m.onnx cuda 8 of 9 7 of 7 43.7 dB 38.2 dB 240 ms 0.33x" in text
    assert "n.onnx cuda 8 of 9 7 of 7 equal to the CPU&#x27;s - 240 ms 0.33x" in text
    assert "m.onnx: 1 of 9 nodes run on the CPU: 1 Gelu." in text
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(profile_table(make_result(rounded)))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "against the CPU provider nodes products outputs needed CPU time" in lines
    assert "m.onnx cuda 8 of 9 7 of 7 43.7 dB 38.2 dB 240 ms 0.33x" in lines


def test_decoding_is_compared_tied_against_untied(tmp_path: Path) -> None:
    page = page_of(make_decoders(), tmp_path)
    assert (
        "lm.generate.onnx: 109 tokens per second tied, 51 untied, 2.13x faster; a token reads 12 MiB of different "
        "weights tied, 120 MiB untied."
    ) in page
    for cell in ("109", "981", "120 MiB", "12 MiB", "10 MiB", "L3", "6 MiB"):
        assert f"<td>{cell}</td>" in page
    assert "<title>weights, again: 108 MiB</title>" in page
    unknown = page_of(make_decoders(prompt_tokens_per_second=None, fits=None), tmp_path)
    assert "Prompt, tokens per second" not in unknown
    assert "<td>memory</td>" in unknown
    alike = make_decoders()
    runs = [alike.runs[0], replace(alike.runs[1], time_ratio=1.0, spread=alike.runs[0].spread)]
    assert "51 untied, the same within the noise;" in page_of(make_result(*runs), tmp_path)


def test_of_a_quantized_file_stands_what_rounding_does(tmp_path: Path) -> None:
    run = make_run("a.int8.onnx", quantization="static", fidelity=make_fidelity(states=2))
    twin = replace(run, name="a.int8.onnx (untied)", twin="untied")
    section = "\n".join(quantized_section([make_run(), run, twin]))
    assert section.count("<td>a.int8.onnx</td>") == 2  # a row for each state, none for the twin
    assert "<td>0.9993 to 0.999<small>accuracy</small></td>" in section
    assert "<td>512<small>of the validation part</small></td>" in section
    assert "<td>0.999990<small>0.9900, iteration 0</small></td>" in section
    assert "<td>0.9951<small>0.9851, iteration 6</small></td>" in section
    assert "<td>0.9987<small>0.9887, iteration 11</small></td>" in section
    bare = replace(make_fidelity(0), metric=None)
    assert "<td>-</td>" in "\n".join(quantized_section([replace(run, fidelity=bare)]))
    assert quantized_section([make_run()]) == []


def test_a_profile_of_which_nothing_was_measured_says_so(tmp_path: Path) -> None:
    failed = replace(make_sweep(), runs=[], limits=[])
    page = page_of(failed, tmp_path)
    assert "No model could be measured." in page
    assert "killed by SIGKILL" in page
    assert headings(page) == ["Could not be measured", "How it was measured"]
    assert "killed by SIGKILL" in _terminal(failed, 100)


def test_names_are_escaped_and_an_existing_report_is_kept(tmp_path: Path) -> None:
    hostile = '<script>alert("1")</script>&.onnx'
    result = make_result(*(replace(run, name=hostile) for run in make_sweep().runs))
    page = page_of(result, tmp_path)
    assert "<script" not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)" in page
    with pytest.raises(InputError, match="exists already"):
        write_profile_html(result, tmp_path / "report.html")


def test_figures_stand_with_their_range(tmp_path: Path) -> None:
    page = page_of(make_pair(), tmp_path)
    assert "<td>360 MiB<small>356 to 364 MiB</small></td>" in page
    assert "<td>1.02x<small>1.01x to 1.03x</small></td>" in page


def test_the_output_error_has_a_column_where_outputs_were_compared(tmp_path: Path) -> None:
    runs = [make_run(), make_run("int8.onnx", output_error=0.0312)]
    page = page_of(make_result(*runs), tmp_path)
    assert "<th>output error</th>" in page
    assert "<td>3.1e-02</td>" in page
    assert "its outputs differ by 3.1e-02 of their norm" in page
    assert "output error" not in page_of(make_result(make_run(), make_run("b.onnx")), tmp_path)


def test_the_sources_of_a_peak_are_reported_other_included(tmp_path: Path) -> None:
    sources = replace(make_sources(66, 41), kv_cache_bytes=0)
    page = page_of(make_result(make_run(memory_sources=sources)), tmp_path)
    assert "<title>weights, packed: 24.6 MiB</title>" in page
    assert "-1.64 MiB" in page  # other is negative here
    assert "KV cache" not in page
    assert "Activations are largest at /core/mlp/Gelu." in page


def test_loading_and_running_are_distinguished_where_both_are_known(tmp_path: Path) -> None:
    running = make_sources(57, 41)
    loading = replace(make_sources(66, 41), moment="load", transient_bytes=3 << 20, peak_node=None)
    run = make_run(memory_sources=loading, running_sources=running)
    page = page_of(make_result(run), tmp_path)
    assert re.findall(r"<span>[^<]*, (loading|running)</span><span>(.*?)</span>", page) == [
        ("loading", "66 MiB"),
        ("running", "57 MiB"),
    ]
    assert "<title>at the peak only: 3 MiB</title>" in page
    assert "Activations are largest at /core/mlp/Gelu." in page
    only = make_run(memory_sources=running, running_sources=running)
    assert ", running<" not in page_of(make_result(only), tmp_path)


def test_a_line_over_loops_is_a_kind_of_model_and_needs_two_counts() -> None:
    single = [make_run(loops=12), make_run("b.onnx", loops=None)]
    assert scaling_section(single) == []
    files = [make_run(f"r{loops}.onnx", loops=loops) for loops in (1, 12, 48)]
    chart = "\n".join(scaling_section(files))
    assert chart.count("<polyline") == 2  # memory and latency
    assert chart.count("<circle") == 6
    folders = [make_run(path=f"{name}/m.onnx", loops=loops) for name in "ab" for loops in (1, 4)]
    twice = "\n".join(scaling_section(folders))
    assert re.findall(r"</i>(.*?)</li>", twice) == ["a/m.onnx, tied", "b/m.onnx, tied"] * 2
    sweep = "\n".join(scaling_section(make_sweep().runs))
    assert re.findall(r"</i>(.*?)</li>", sweep) == ["tied", "untied"] * 2


def test_only_runs_that_no_other_beats_are_on_the_front() -> None:
    runs = [
        make_run("slow.onnx", peak=30, p50=300),
        make_run("fast.onnx", peak=90, p50=100),
        make_run("beaten.onnx", peak=91, p50=100),
        make_run("middle.onnx", peak=60, p50=200),
        make_run("worse.onnx", peak=61, p50=250),
    ]
    front = pareto_front(runs)
    assert [run.name for run in front] == ["slow.onnx", "middle.onnx", "fast.onnx"]
    section = "\n".join(tradeoff_section(runs))
    assert "On the front: slow.onnx, middle.onnx, fast.onnx." in section
    assert tradeoff_section(runs[:1]) == []
    assert sum("<figure>" in line for line in tradeoff_section(make_sweep().runs)) == 4


def test_labels_of_points_that_meet_stand_apart() -> None:
    marks = [Mark(x=1.0, y=1.0, label=str(i)) for i in range(1, 6)]
    lines = chart(
        [Series(name="", colour="op0", marks=marks, joined=False)],
        across=Axis(name="x"),
        upward=Axis(name="y"),
    )
    places = re.findall(r'class="middle name" x="([\d.]+)" y="([\d.]+)"', "\n".join(lines))
    assert len(set(places)) == 5


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_everything_and_nothing_is_cut(width: int) -> None:
    for result in (make_sweep(), make_forms(), make_pair(), make_decoders()):
        text = _terminal(result, width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
    text = _terminal(make_sweep(), width)
    for said in ("killed by", "GEMM 62 GFLOP/s", "a leak", "peak by", "of copy", "an iteration"):
        assert said in text


def _terminal(result: ProfileResult, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(profile_table(result))
    return console.export_text()


def test_a_soak_tells_leaks_and_drift() -> None:
    assert soak_text(make_soak()) == (
        "60 s, 1200 runs: no leak: anonymous memory was 30 to 30.4 MiB; "
        "latency is steady (1.00x from the first third to the last)."
    )
    assert soak_text(make_soak(leaks=True)) == (
        "60 s, 1200 runs: anonymous memory grows by 4.96 MiB per 1000 runs, more than it swings: a leak; "
        "the last third is slower than the first, 1.09x."
    )


def test_what_speaks_against_the_figures_stands_before_all_of_them(tmp_path: Path) -> None:
    pair = make_pair()
    runs = [
        replace(run, latency_ms=replace(run.latency_ms, min=run.latency_ms.p50 / 2))
        for run in pair.runs
    ]
    result = replace(pair, runs=runs, notes=["tmlt.onnx stopped after 3 of 12 iterations"])
    page = page_of(result, tmp_path)
    order = [
        page.index(text)
        for text in ("The machine was busy: half", "stopped after 3 of 12", "tying 12 iterations")
    ]
    assert order == sorted(order)
    assert page.count("stopped after 3 of 12") == 1
    assert "<b>Latency</b>: median of one inference (on a busy machine)" in page
    text = _terminal(result, 120)
    order = [text.index(part) for part in ("The machine was busy", "p50", "tying 12 iterations")]
    assert order == sorted(order)
    assert 'class="caution"' not in page_of(pair, tmp_path)

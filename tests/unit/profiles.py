"""Profiles made by hand: one run, or a rich sweep with twins, failures, a soak and a GPU."""

from dataclasses import replace
from typing import Any

from loopedge.profiler.result import (
    SCHEMA_VERSION,
    AgainstCpu,
    Decoding,
    Failure,
    Fidelity,
    GpuMemory,
    IterationTime,
    MachineLimits,
    MemorySources,
    OperatorTime,
    ProfileResult,
    Roofline,
    Run,
    Soak,
    SoakPoint,
    Spread,
    StateCosine,
)
from loopedge.runtime.latency import Latency

MIB = 2**20
MACHINE: dict[str, Any] = {
    "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
    "cpu_features": ["avx512f", "avx512_vnni"],
    "cores": 2,
    "memory_bytes": 8 * 2**30,
    "system": "Linux x86_64",
    "python": "3.11.9",
    "onnxruntime": "1.32.0",
    "loopedge": "0.1.0",
}


def make_latency(p50: float) -> Latency:
    return Latency(p50=p50, p95=1.1 * p50, p99=1.3 * p50, mean=1.02 * p50, min=0.97 * p50, runs=60)


def make_run(
    name: str = "tmlt.onnx", *, peak: float = 66, swing: float = 0.01, **fields: Any
) -> Run:
    """Return a run of some MiB at its peak, whose figures swing by so much to either side."""
    p50, ratio = fields.pop("p50", 240.0), fields.pop("time_ratio", 1.0)
    anon = fields.pop("anon", 0.45 * peak)
    figures: dict[str, float] = {
        "load_seconds": 0.08,
        "anon_bytes": int(anon * MIB),
        "mapped_bytes": 9 * MIB,
        "uss_bytes": int((anon + 1) * MIB),
        "rss_load_bytes": int((anon + 9) * MIB),
        "rss_peak_bytes": int(peak * MIB),
    }
    spread = {key: _around(value, swing) for key, value in figures.items()}
    spread["latency_ms.p50"] = _around(p50, 2 * swing)
    spread["time_ratio"] = _around(ratio, swing if ratio != 1.0 else 0.0)
    plain: dict[str, Any] = {
        "path": name.split(" ")[0],
        "runtime": "onnxruntime",
        "form": "loop",
        "twin": None,
        "quantization": None,
        "loops": 12,
        "provider": "CPUExecutionProvider",
        "memory": "balanced",
        "threads": 1,
        "batch": 1,
        "sequence": 128,
        "processes": 3,
        "file_bytes": int(41.4 * MIB),
        "weight_bytes": int(41.2 * MIB),
        "baseline_bytes": 47 * MIB,
        "nodes": {"CPUExecutionProvider": 31},
        "ops": make_operators(p50),
    }
    return Run(
        name=name,
        latency_ms=make_latency(p50),
        time_ratio=ratio,
        spread=spread,
        **{**figures, **plain, **fields},
    )


def _around(value: float, swing: float) -> Spread:
    return Spread(low=value * (1 - swing), high=value * (1 + swing))


def make_operators(ms: float, shares: dict[str, float] | None = None) -> list[OperatorTime]:
    shares = shares or {
        "MatMul": 0.78, "Attention": 0.09, "Gelu": 0.05, "RMSNormalization": 0.03, "Mul": 0.02,
        "Add": 0.015, "Gather": 0.01, "Loop": 0.005,
    }  # fmt: skip
    return [
        OperatorTime(op=op, count=12.0, ms=ms * share, share=share) for op, share in shares.items()
    ]


def make_iterations(loops: int, ms: float) -> list[IterationTime]:
    swings = [1 + 0.03 * ((7 * i) % 5 - 2) / 2 for i in range(loops)]
    return [
        IterationTime(
            iteration=i,
            ms=ms / loops * swing,
            ops={item.op: item.ms for item in make_operators(ms / loops * swing)},
        )
        for i, swing in enumerate(swings)
    ]


def make_sources(peak: float, weights: float) -> MemorySources:
    parts = {
        "weights_mapped_bytes": int(0.3 * weights * MIB),
        "weights_copied_bytes": int(0.1 * weights * MIB),
        "packed_bytes": int(0.6 * weights * MIB),
        "activations_bytes": int(0.7 * (peak - weights) * MIB),
        "kv_cache_bytes": 0,
        "graph_bytes": 300_000,
        "retained_bytes": 900_000,
        "transient_bytes": 0,
        "runtime_bytes": 8 * MIB,
    }
    rest = int(peak * MIB) - sum(parts.values())
    return MemorySources(
        moment="run",
        peak_bytes=int(peak * MIB),
        other_bytes=rest,
        peak_node="/core/mlp/Gelu",
        **parts,
    )


def make_roofline(share: float) -> Roofline:
    return Roofline(
        gflop=14.5,
        gb=0.33,
        gflops_per_second=62 * share,
        gb_per_second=1.4 * share,
        compute_share=share,
        copy_share=0.12 * share,
        bound="compute",
    )


def make_soak(*, leaks: bool = False) -> Soak:
    points = [
        SoakPoint(
            process=process,
            second=2.0 * turn + process,
            runs=40 * turn,
            rss_bytes=int((62 + (0.2 * turn if leaks else 0) + (turn * 7 + process) % 3 / 4) * MIB),
            anon_bytes=int((30 + (0.2 * turn if leaks else 0) + (turn * 5) % 4 / 8) * MIB),
            p50_ms=240 + (turn * 13 + 5 * process) % 9,
        )
        for process in range(3)
        for turn in range(30)
    ]
    growth = 5_200_000.0 if leaks else 900.0
    return Soak(
        seconds=60.0,
        runs=1200,
        anon_bytes_per_1000_runs=growth,
        leaks=leaks,
        drift=1.09 if leaks else 1.004,
        points=points,
    )


def make_gpu(name: str, *, weights: float, graph: bool = False) -> Run:
    gpu = GpuMemory(
        name="NVIDIA H100 80GB HBM3",
        process_bytes=int((weights + 110) * MIB),
        context_bytes=480 * MIB,
        weights_bytes=int(weights * MIB),
        workspace_bytes=32 * MIB,
        activations_bytes=int(14.5 * MIB),
        memcpy_nodes=0 if graph else 3,
        cuda_graph=graph,
        fell_back=[] if graph else ["/core/Gather (Gather)", "/Shape_1 (Shape)"],
    )
    nodes = {"CUDAExecutionProvider": 29} | ({} if graph else {"CPUExecutionProvider": 2})
    return make_run(
        name,
        provider="CUDAExecutionProvider",
        nodes=nodes,
        gpu=gpu,
        assigned={
            "CUDAExecutionProvider": {"MatMul": 7, "Loop": 1},
            "CPUExecutionProvider": {"Gelu": 1},
        },
        against_cpu=make_against_cpu(),
        p50=2.1 if graph else 3.4,
        time_ratio=0.62 if graph else 1.0,
        peak=310,
    )


def make_against_cpu(**fields: Any) -> AgainstCpu:
    """Return how a run on another provider does against the CPU: rounded, and in a third of the time."""
    known: dict[str, Any] = {
        "compared_with": "cpu",
        "max_rel_error": 6.9e-3,
        "sqnr_db": 43.7,
        "cpu_sqnr_db": None,
        "bfloat16_db": 41.2,
        "limit_db": 38.2,
        "cpu_ms": 240.0,
        "time_ratio": 0.33,
    }
    return AgainstCpu(**{**known, **fields})


def make_fidelity(states: int = 1) -> Fidelity:
    """Return what a file says of its rounding, of a state that drifts until iteration 6."""
    means = (
        0.99999,
        0.9998,
        0.9996,
        0.9991,
        0.998,
        0.996,
        0.9951,
        0.9962,
        0.9973,
        0.998,
        0.9983,
        0.9987,
    )
    return Fidelity(
        sqnr_db=33.6,
        measured_on="validation",
        samples=512,
        metric="accuracy",
        float_score=0.9993,
        score=0.9990,
        states=[
            StateCosine(
                core="core",
                state=f"core/add_{i}",
                mean=[*means],
                worst=[mean - 0.01 for mean in means],
            )
            for i in range(states)
        ],
    )


def make_decoding(tokens: float, *, distinct: float, **fields: Any) -> Decoding:
    return Decoding(
        **{
            "tokens_per_second": tokens,
            "prompt_tokens_per_second": 9 * tokens,
            "weight_bytes": 120 * MIB,
            "distinct_bytes": int(distinct * MIB),
            "block_bytes": 10 * MIB,
            "cache_bytes": 6 * MIB,
            "fits": "L3",
            **fields,
        }
    )


def make_decoders(**fields: Any) -> ProfileResult:
    """Return a generate file and its untied twin, which takes twice as long."""
    tied = make_run("lm.generate.onnx", p50=9.2, decoding=make_decoding(109, distinct=12, **fields))
    untied = make_run(
        "lm.generate.onnx (untied)",
        path="lm.generate.onnx",
        twin="untied",
        p50=19.6,
        time_ratio=2.13,
        decoding=make_decoding(51, distinct=120, **fields),
    )
    return make_result(tied, untied)


def make_result(*runs: Run, **fields: Any) -> ProfileResult:
    plain: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "client": None,
        "created": "2026-11-27T03:40:00+00:00",
        "machine": MACHINE,
        "limits": [],
        "failures": [],
        "notes": [],
    }
    return ProfileResult(runs=list(runs), **{**plain, **fields})


def make_pair(**untied: Any) -> ProfileResult:
    """Return a model and its untied twin."""
    twin: dict[str, Any] = {
        "twin": "untied",
        "form": "unrolled",
        "peak": 360,
        "file_bytes": 354 * MIB,
        "time_ratio": 1.02,
        **untied,
    }
    return make_result(make_run(), make_run("tmlt.onnx (untied)", **twin))


def make_sweep() -> ProfileResult:
    """Return five models over 1, 4, 12 and 48 loops, with whatever a section may show."""
    runs = []
    for loops in (1, 4, 12, 48):
        ms = 20.0 * loops
        tied = make_run(
            loops=loops,
            p50=ms + 0.4,
            time_ratio=loops / 1.0,
            iterations=make_iterations(loops, ms),
            memory_sources=make_sources(66, 41),
            roofline=make_roofline(0.83),
            soak=make_soak() if loops == 12 else None,
        )
        runs.append(tied)
    others = []
    for loops in (1, 4, 12, 48):
        weights = 14.0 + 27 * loops
        untied: dict[str, Any] = {
            "loops": loops,
            "twin": "untied",
            "form": "unrolled",
            "peak": weights * 1.3 + 12,
            "file_bytes": int(weights * MIB),
            "p50": 20.2 * loops,
            "time_ratio": 1.01 * loops,
            "memory_sources": make_sources(weights * 1.3 + 12, weights),
            "roofline": make_roofline(0.80),
        }
        others.append(make_run("tmlt.onnx (untied)", **untied))
    runs.append(
        make_run(
            "tmlt.static.per-iteration.int8.onnx",
            quantization="static",
            peak=29,
            anon=12,
            file_bytes=int(10.8 * MIB),
            p50=75.0,
            time_ratio=3.7,
            iterations=make_iterations(12, 74),
            memory_sources=make_sources(29, 11),
            soak=make_soak(leaks=True),
            fidelity=make_fidelity(),
        )
    )
    runs.append(
        make_run("tmlt.onnx (low)", memory="low", peak=57, anon=3, p50=270.0, time_ratio=13.4)
    )
    others.append(
        make_run(
            "model.pt",
            path="model.pt",
            runtime="torch",
            form=None,
            peak=190,
            anon=95,
            p50=310.0,
            time_ratio=15.5,
            swing=0.06,
            baseline_bytes=210 * MIB,
            provider="PyTorch",
            nodes={"PyTorch": 1},
        )
    )
    failures = [
        Failure(
            name="tmlt.onnx (untied)",
            path="tmlt.onnx",
            twin="untied",
            reason="its process was killed by SIGKILL, probably for memory: 1.9 GiB were in use",
        )
    ]
    limits = [
        MachineLimits(
            threads=1, gflops_per_second=62.0, int8_gops_per_second=181.0, gb_per_second=11.6
        )
    ]
    return make_result(*runs, *others, limits=limits, failures=failures)


def make_forms() -> ProfileResult:
    """Return a Loop, an unrolled graph and one in a CUDA graph, on a GPU."""
    runs = [
        make_gpu("tmlt.onnx", weights=41),
        replace(make_gpu("tmlt.onnx (unrolled)", weights=42), twin="unrolled", form="unrolled"),
        replace(make_gpu("graph.onnx", weights=42, graph=True), form="unrolled"),
    ]
    return make_result(*runs, machine={**MACHINE, "gpu_driver": "580.65.06", "cuda": "13.0"})

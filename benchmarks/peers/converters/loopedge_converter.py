"""loopedge itself: the Loop in every memory profile, float32 and static int8 with ranges per iteration."""

import loopedge
import loopedge_calibration
from benchmarks.peers.convert import Job, Made
from benchmarks.peers.converters.counting import count_run_products
from benchmarks.peers.products import LAST
from benchmarks.peers.whole import calibration
from loopedge.artifact.artifact import Artifact, open_artifact
from loopedge.graph.metadata import read_metadata
from loopedge.runtime.memory_profiles import choose_profile

__all__ = ["convert"]


def convert(job: Job) -> Made:
    """Export, and quantize or prepare as the variant says: ``[int8-]balanced|low|mapped|selectable[-last]``."""
    variant = job.variant.removesuffix(LAST)
    precision, _, profile = variant.rpartition("-")
    path = job.target / "model.onnx"
    loopedge.export(
        job.subject / "model.pt",
        path,
        memory=profile if profile in ("low", "mapped") else "balanced",
        dynamic_loops=profile == "selectable",
        logits="all" if variant == job.variant else "last",
    )
    if precision == "int8":
        samples = [{"input_ids": sample.numpy()} for sample in calibration(job.subject)]
        ranges = loopedge_calibration.collect(path, samples, granularity="per-iteration")
        target = job.target / "int8.onnx"
        loopedge.quantize(path, target, ranges=ranges, data=samples[:1])
        path = target
    quantized, products = count_run_products(path)
    if profile == "mapped":
        path = job.target / loopedge.prepare(path).path
    chosen = choose_profile(None, read_metadata(open_artifact(path).metadata_props), path)
    return Made(
        path=path,
        files=tuple(Artifact.open(path).files),
        quantized=quantized,
        products=products,
        options={"optimize": chosen.optimize},
    )

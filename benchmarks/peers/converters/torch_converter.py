"""PyTorch: the checkpoint is the artifact; for torch.compile its cache is filled, so that loading is quick."""

from benchmarks.peers.convert import Job, Made

__all__ = ["convert"]


def convert(job: Job) -> Made:
    """Copy the checkpoint, and compile once where the variant says so."""
    path = job.target / "model.pt"
    path.write_bytes((job.subject / "model.pt").read_bytes())
    if job.variant == "compiled":
        from benchmarks.peers.runtimes.torch_runtime import Model
        from benchmarks.peers.whole import calibration

        Model(str(path), compiled=True, sequence=calibration(job.subject)[0].shape[1])
    return Made(path=path, files=(path,))

"""Let an engine compute files: the program that runs in its environment, by the path of this file.

    python compute.py ENGINE JOBS.json

The jobs are a list of ``{"model", "inputs", "outputs", "names"}``: an ONNX file, an ``.npz`` that is read and one that is
written, and the names of the outputs in their order.
Printed, one line of JSON each: ``{"version"}``, then for each job ``{"refused"}``, None or the engine's reason.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np


def main(engine: str, jobs: str) -> None:
    """Compute every job."""
    module = importlib.import_module(f"{engine}_engine")
    print(json.dumps({"version": module.VERSION}), flush=True)
    for job in json.loads(Path(jobs).read_text(encoding="utf-8")):
        with np.load(job["inputs"]) as stored:
            feeds = dict(stored)
        refused = None
        try:
            np.savez(job["outputs"], **module.compute(Path(job["model"]), feeds, job["names"]))
        except Exception as error:  # each engine raises a kind of its own
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            refused = " ".join(lines)[-200:] or type(error).__name__
        print(json.dumps({"refused": refused}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

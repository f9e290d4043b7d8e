"""Convert each product once, in the environment of its toolchain, within its time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import FOLDER, environment_of, python_path
from benchmarks.peers.products import Product

__all__ = ["ARTIFACTS", "SUBJECTS", "conversion_of", "convert_all", "is_made"]

ARTIFACTS, SUBJECTS = FOLDER / "artifacts", FOLDER / "subjects"
OUTCOME = "made.json"

Outcome = dict[str, Any]


def convert_all(products: Collection[Product], refresh: Collection[str]) -> None:
    """Convert what has not been converted.

    Args:
        products: All of them; those that read another one's artifact stand behind it.
        refresh: Peers whose products are made again, and ``failed`` for those that failed.
    """
    for peer_product in {product.artifact: product for product in products}.values():
        folder = ARTIFACTS / peer_product.artifact
        if folder.exists():
            failed = not is_made(peer_product)
            if peer_product.peer in refresh or (failed and "failed" in refresh):
                shutil.rmtree(folder)
        if (folder / OUTCOME).exists():
            continue
        print(f"converting {peer_product.artifact}", end=" ", file=sys.stderr, flush=True)
        outcome = _convert(peer_product, folder)
        status = outcome.get("failed", "done")
        print(f"{outcome['seconds']:.0f} s, {status}", file=sys.stderr, flush=True)
        (folder / OUTCOME).write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")


def conversion_of(product: Product) -> Outcome:
    """Return what came of a product's conversion: `Made`'s keys, or ``failed``; and ``seconds``."""
    outcome: Outcome = json.loads((ARTIFACTS / product.artifact / OUTCOME).read_text("utf-8"))
    return outcome


def is_made(product: Product) -> bool:
    """Say whether there is an artifact."""
    made = ARTIFACTS / product.artifact / OUTCOME
    return made.exists() and "failed" not in conversion_of(product)


def _convert(product: Product, folder: Path) -> Outcome:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = environment_of(product.environment)
    if isinstance(python, str):
        return {"failed": python, "seconds": 0.0}
    job = {
        "variant": product.variant,
        "subject": str(SUBJECTS / product.subject),
        "target": str(folder),
    }
    words = [str(python), "-P", "-m", "benchmarks.peers.convert", product.peer, json.dumps(job)]
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(product.environment),
        "OMP_NUM_THREADS": "1",
    }
    started = time.perf_counter()
    with (folder / "log.txt").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(timeout=product.limit_s)
        except subprocess.TimeoutExpired:
            return {
                "failed": f"not converted within {product.limit_s} s",
                "seconds": time.perf_counter() - started,
            }
        finally:
            if process.poll() is None:  # with all that it started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        return _last_line(log.read(), process.returncode, time.perf_counter() - started)


def _last_line(log: str, code: int, seconds: float) -> Outcome:
    line = log.strip().rpartition("\n")[2]
    if line.startswith("{"):
        outcome: Outcome = json.loads(line)
        return outcome
    reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return {"failed": f"the conversion {reason}", "seconds": seconds}

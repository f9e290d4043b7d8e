"""`verify` and `bench` of a bundle in a headless Chromium, as the programs of other clients print them.

    python -m benchmarks.clients.browser verify|bench BUNDLE --packages node_modules [--provider webgpu] [--threads 2]

WebGPU runs on an adapter in software: that it computes rightly says something, its times do not. More than one thread needs
a page that is served cross-origin isolated, which this program does.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.clients.chromium import WEBGPU_FLAGS, Chromium, link_runtime, serve, start_chromium

__all__ = ["ask_page"]

STATES = {"verify": "verified", "bench": "report"}


def ask_page(
    task: str, bundle: Path, *, packages: Path, provider: str = "wasm", threads: int = 1
) -> Any:
    """Open the page of a bundle, press a button, and return what it found.

    Args:
        task: ``verify``, whose lines are returned, or ``bench``, whose report is.
        bundle: Its folder; links to the runtime are put into it.
        packages: ``node_modules`` with onnxruntime-web.
        provider: ``wasm`` or ``webgpu``.
        threads: Threads of WebAssembly.

    Raises:
        RuntimeError: The page shows a problem.
    """
    link_runtime(bundle, packages)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    model = manifest["clients"]["web"]["model"]  # not another form that this provider would get
    flags = WEBGPU_FLAGS if provider == "webgpu" else ()
    with start_chromium(*flags) as browser, serve(bundle, isolated=threads > 1) as address:
        browser.open(f"{address}?provider={provider}&threads={threads}&model={model}")
        _raise_problem(browser)
        browser.ask(f"document.getElementById('{task}').click()")
        browser.wait(f"!document.getElementById('{task}').disabled")
        _raise_problem(browser)
        return browser.ask(f"loopedgePage.{STATES[task]}")


def _raise_problem(browser: Chromium) -> None:
    problem = browser.ask("loopedgePage.problem")
    if problem is not None:
        raise RuntimeError(problem)


def main() -> int:
    """Print what the page found; exit code 1 where a vector fails or the page shows a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=STATES)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--provider", default="wasm")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    try:
        found = ask_page(
            asked.task, asked.bundle, packages=asked.packages.absolute(),
            provider=asked.provider, threads=asked.threads,
        )  # fmt: skip
    except (RuntimeError, AssertionError) as error:  # of the second kind: no browser, or it ended
        print(f"error: {error}", file=sys.stderr)
        return 1
    if asked.task == "bench":
        print(json.dumps(found, indent=1))
        return 0
    for line in found:
        print(json.dumps(line))
    return 0 if all(line["passed"] for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())

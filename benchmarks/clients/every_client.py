"""What each client of a bundle makes of each form and scheme: does it load, how far off is it, what does it take?

A causal model (d=256, 64 positions) of 1, 12 and 48 loops, both forms, float32 and three kinds of int8, is packaged; each client
runs its own `verify` and `bench`, with one thread. That outputs are within the tolerance of the bundle, and that the Loop takes
the same memory at every loop count, blocks (exit code 4). Takes half an hour, a C compiler, qemu-user, Node, Chromium, and what
`make test-clients` and `make test-clients-all` install.

    python -m benchmarks.clients.every_client [--schemes float32 static] [--clients C Node] [--output benchmarks/results/clients]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.clients.bundles import LOOPS, SCHEMES, write_bundles
from benchmarks.clients.programs import CLIENTS, Client, Found, missing_parts, try_client
from loopedge.profiler.machine import describe_machine

MIB = 2**20
FLAT_BYTES = 4 * MIB
"""What the Loop's memory may differ by between loop counts: malloc, and the heap of Node's own language, which moves by 3 MiB."""
TIMED = 12
"""The loop count whose time stands in the table."""

Key = tuple[str, str, str]
"""Client, form, scheme."""


def measure(
    folder: Path, schemes: Sequence[str], clients: Sequence[Client]
) -> dict[Key, dict[int, Found]]:
    """Return, by client, form and scheme, what was found at each loop count."""
    found: dict[Key, dict[int, Found]] = {}
    for bundle in write_bundles(folder, schemes):
        for client in clients:
            one = try_client(client, bundle.folder)
            found.setdefault((client.title, bundle.form, bundle.scheme), {})[bundle.loops] = one
            print(client.title, bundle.form, bundle.scheme, bundle.loops, one, file=sys.stderr)
    return found


def judge(found: dict[Key, dict[int, Found]]) -> list[tuple[str, bool]]:
    """Return what must hold, and whether it does."""
    loaded = [one for row in found.values() for one in row.values() if one.refused is None]
    flat = True
    for (_, form, _), row in found.items():
        sizes = [one.memory_bytes for one in row.values() if one.memory_bytes is not None]
        if form == "loop" and sizes:
            flat = flat and max(sizes) - min(sizes) <= FLAT_BYTES
    return [
        (
            "every client that loads a bundle passes its test vectors",
            all(one.passed for one in loaded),
        ),
        (
            f"the Loop takes the same memory at {', '.join(map(str, LOOPS))} loops, within 4 MiB",
            flat,
        ),
    ]


def lines_of(
    found: dict[Key, dict[int, Found]], bounds: list[tuple[str, bool]], machine: dict[str, Any]
) -> list[str]:
    """Return the table."""
    lines = [
        "# Clients, forms and schemes",
        "",
        f"{machine['cpu']}, one thread, in Chromium two; ONNX Runtime {onnxruntime.__version__} in Python and C, 1.30.0 in JavaScript. "
        f"A causal model, d=256, 64 positions. "
        f"Error: the largest relative one of all test vectors, of int8 the lowest ratio of signal to noise against the float model. "
        f"Memory at {', '.join(map(str, LOOPS))} loops: anonymous MiB after load, of WebAssembly its heap. Time: the fastest inference at "
        f"{TIMED} loops, in parts of Python's with the same model. WebGPU runs on an adapter in software, ARM64 in an emulator: "
        f"neither is timed.",
        "",
        "| client | form | weights | loads | error | memory, MiB | time |",
        "|---|---|---|---|---|---|---|",
    ]
    for (client, form, scheme), row in found.items():
        base = found[CLIENTS[0].title, form, scheme][TIMED].min_ms
        lines.append(f"| {client} | {form} | {scheme} | {_cells(row, base)} |")
    lines.append("")
    lines += [f"- {'holds' if passed else 'MISSED'}: {name}" for name, passed in bounds]
    return lines


def _cells(row: dict[int, Found], base: float | None) -> str:
    refused = next((one.refused for one in row.values() if one.refused is not None), None)
    if refused is not None:
        reason = refused.removeprefix("error: ").partition(",")[0]
        return f"no | {reason} | | "
    errors = [one.error for one in row.values() if one.error is not None]
    largest = max(errors) < 1
    error = f"{max(errors):.0e}" if largest else f"{min(errors):.1f} dB"
    sizes = [one.memory_bytes for one in row.values()]
    memory = " / ".join("" if size is None else f"{size / MIB:.1f}" for size in sizes)
    time = row[TIMED].min_ms
    ratio = "" if time is None or base is None else f"{time / base:.2f}"
    return f"yes | {error} | {memory if any(sizes) else 'not measured'} | {ratio or 'not measured'}"


def main() -> int:
    """Write, run, print one table, and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for clients.json and clients.md")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--clients", nargs="+", default=[""], help="parts of the clients' names")
    arguments = parser.parse_args()
    base, *others = CLIENTS  # times are parts of Python's
    asked = [client for client in others if any(part in client.title for part in arguments.clients)]
    missing = missing_parts(asked)
    if missing:
        print(f"error: there is no {', '.join(missing)}", file=sys.stderr)
        return 2
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), arguments.schemes, [base, *asked])
    bounds = judge(found)
    text = "\n".join(lines_of(found, bounds, machine)) + "\n"
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "clients.md").write_text(text, encoding="utf-8")
        report = {
            "machine": machine,
            "rows": [
                {"client": client, "form": form, "scheme": scheme, "loops": loops, **asdict(one)}
                for (client, form, scheme), row in found.items()
                for loops, one in row.items()
            ],
            "bounds": [{"name": name, "passed": passed} for name, passed in bounds],
        }
        text = json.dumps(report, indent=2) + "\n"
        (arguments.output / "clients.json").write_text(text, encoding="utf-8")
    return 0 if all(passed for _, passed in bounds) else 4


if __name__ == "__main__":
    sys.exit(main())

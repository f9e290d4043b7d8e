"""The console entry. Before it can take a signal it imports next to nothing."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line: the console entry.

    ONNX Runtime reports to Microsoft unless a variable forbids it before the import; these commands set it.
    """
    try:
        from loopedge_cli.interrupts import end_at_once

        end_at_once()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
    from loopedge_cli.app import run

    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        code = run()
    finally:
        end_at_once()  # nothing is left to clean up
    sys.exit(code)


if __name__ == "__main__":
    main()

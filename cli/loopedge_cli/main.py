"""The console entry. Before it can take Ctrl-C it imports next to nothing."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        from loopedge_cli.interrupts import end_at_once

        end_at_once()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
    from loopedge_cli.app import PROGRAM, app

    app(prog_name=PROGRAM)


if __name__ == "__main__":
    main()

"""``python -m loopedge``: the command line, found at run time since it stands above the library."""

import importlib

if __name__ == "__main__":
    importlib.import_module("loopedge_cli.main").main()

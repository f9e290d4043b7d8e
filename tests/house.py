"""Is the house small enough for a stranger? Files by folder and the longest functions, against their limits.

``make lint`` runs it. A function that has to be longer says so beside its name, ``def f(  # long: the reason``.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("loopedge", "calibration/loopedge_calibration", "cli/loopedge_cli")
MAX_ROOT_FILES = 8
MAX_FOLDER_FILES = 16
MAX_FUNCTION_LINES = 80
AIM_FUNCTION_LINES = 50


def crowded_folders(root: Path) -> Iterator[str]:
    """Yield one line for each folder of ``root`` that holds too many modules side by side."""
    for folder in sorted({path.parent for path in root.rglob("*.py")}):
        files = len(list(folder.glob("*.py")))
        allowed = MAX_ROOT_FILES if folder == root else MAX_FOLDER_FILES
        if files > allowed:
            yield f"{folder} holds {files} files, {allowed} are allowed: make a room of some of them"


def functions(root: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield lines, ``file:line name`` and the reason for its length of each function under ``root``."""
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                first = text.splitlines()[node.lineno - 1]
                reason = first.partition("# long:")[2].strip() or None
                yield node.end_lineno - node.lineno + 1, f"{path}:{node.lineno} {node.name}", reason


def main() -> int:
    """Print what is found; return 1 where a limit is passed without a reason."""
    found = [item for root in PACKAGES for item in functions(Path(root))]
    wrong = list(crowded_folders(Path(PACKAGES[0])))
    wrong += [
        f"{where} has {lines} lines, {MAX_FUNCTION_LINES} are allowed: make stations of it"
        for lines, where, reason in found
        if lines > MAX_FUNCTION_LINES and reason is None
    ]
    past_aim = sum(lines > AIM_FUNCTION_LINES for lines, _, _ in found)
    for lines, where, reason in sorted(found, reverse=True)[:5]:
        print(f"{lines:4} lines  {where}{f'  ({reason})' if reason else ''}")
    print(f"{len(found)} functions, {past_aim} of them past {AIM_FUNCTION_LINES} lines")
    for line in wrong:
        print(line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

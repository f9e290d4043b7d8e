"""What PyTorch says of code that it cannot capture, as one line that names the user's line."""

import re
from pathlib import Path
from types import TracebackType

from loopedge.errors import InputError
from loopedge.user_code import FOREIGN_CODE, users_line

__all__ = ["capture_error"]

LINE_OF_CODE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def capture_error(part: str, error: Exception) -> InputError:
    """Return the error of a part that PyTorch could not capture, in one line that names the user's code."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(cause).__name__
    if "data-dependent" in reason:
        reason = "Python control flow or a shape depends on the values of a tensor"
    where = _users_line(error, cause)
    return InputError(
        f"the {part} cannot be captured: {reason}" + (f" ({where})" if where else ""),
        hint="control flow and shapes must not depend on tensor values; see docs/bring_your_own.md",
    )


def _users_line(error: Exception, cause: BaseException) -> str:
    """Find the innermost line of the user's code that PyTorch ran, or that its message names."""
    for raised in (cause, error):
        lines = [
            f"{Path(match['file']).name}, line {match['line']}"
            for match in LINE_OF_CODE.finditer(str(raised))
            if not match["file"].startswith(FOREIGN_CODE)
        ]
        found = users_line(_inside_torch(raised)) or (lines[-1] if lines else "")
        if found:
            return found
    return ""


def _inside_torch(raised: BaseException) -> TracebackType | None:
    """Return the traceback from where PyTorch was entered: what is around it called us."""
    trace = raised.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(FOREIGN_CODE[0]):
        trace = trace.tb_next
    return trace

"""The timestep tables of a model, which become constants of the graph."""

from typing import Any

import numpy as np
import numpy.typing as npt

from loopedge.errors import InputError
from loopedge.exporter.module.exported_module import ExportedModule
from loopedge.exporter.module.user_methods import run_user_code
from loopedge.model.contract import timestep_table_of

__all__ = ["compute_tables"]


def compute_tables(module: ExportedModule, loops: int) -> dict[str, npt.NDArray[Any]]:
    """Compute the timestep tables, and refuse what cannot be one."""
    given = run_user_code("timestep_table", timestep_table_of, module.looped, loops)
    tables: dict[str, npt.NDArray[Any]] = {}
    for name, values in given.items():
        try:
            table = values.detach().cpu().numpy().copy()
        except (AttributeError, TypeError) as error:  # bfloat16 has no numpy type
            kind = getattr(values, "dtype", type(values).__name__)
            raise InputError(f"timestep_table gives {name} as {kind}, float32 is needed") from error
        tables[name] = table
        if table.ndim < 1 or len(table) != loops:
            raise InputError(
                f"timestep_table({loops}) gives {name} with shape {table.shape}, "
                f"axis 0 must be {loops}"
            )
        if not np.isfinite(table).all():
            raise InputError(f"timestep_table gives values that are not finite in {name}")
    return tables

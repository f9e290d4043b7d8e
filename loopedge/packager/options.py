"""What is asked of a bundle, as one object."""

import re
from dataclasses import dataclass
from pathlib import Path

from loopedge.errors import InputError
from loopedge.options import check_whole, option, option_name
from loopedge.packager.clients import check_clients, check_provider
from loopedge.packager.manifest import ClientName

__all__ = ["DEFAULT_PROMPT", "PackageOptions"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DEFAULT_PROMPT = "The "


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """What a bundle is for, and what goes into it.

    Args:
        clients: ``web``, ``node``, ``c``, ``python``; at least one.
        name: What the model is called in the bundle; default: the name of its file.
        provider: Execution provider that the clients shall use: it chooses the form of the model.
        reference: The float model of a quantized one; default: a file beside it that was exported from the same checkpoint.
        input: A file as ``loopedge run`` takes it: the first test vector, and what the page shows first. Of a table the last window
            of its first series.
        prompt: Of a language model: what its test vector goes on with.
        new_tokens: Tokens of that test vector, at most.
        with_runtime: Put the runtime of each client into the bundle.
        packages: Folder that holds ``node_modules`` or the runtimes' packages, for ``with_runtime``; default: npm and pip are
            asked for them.
        threads: Threads of ONNX Runtime while outputs are computed.
        force: Replace a bundle that stands there.

    Raises:
        InputError: A value cannot be used.
    """

    clients: tuple[ClientName, ...]
    name: str | None = None
    provider: str | None = None
    reference: str | Path | None = None
    input: str | Path | None = None
    prompt: str | None = None
    new_tokens: int = 16
    with_runtime: bool = False
    packages: str | Path | None = None
    threads: int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        object.__setattr__(self, "clients", check_clients(self.clients))
        object.__setattr__(self, "provider", check_provider(self.provider, self.clients))
        check_whole(new_tokens=self.new_tokens, threads=self.threads)
        if self.name is not None and not NAME.fullmatch(self.name):
            raise InputError(
                f"{option_name('name')} is {self.name!r}: letters, digits, '.', '_' and '-' are allowed, 100 at most",
                hint=option("name", "model"),
            )
        if not 1 <= self.new_tokens <= 1024:
            raise InputError(
                f"{option_name('new_tokens')} is {self.new_tokens}, 1 to 1024 are allowed",
                hint=option("new_tokens", 16),
            )
        if self.packages is not None and not self.with_runtime:
            raise InputError(
                f"{option_name('packages')} says where the runtime is, which is not asked for",
                hint=option("with_runtime"),
            )

    def name_of(self, model: Path) -> str:
        """Return what the model is called in the bundle."""
        stem = model.name.removesuffix(".onnx").removesuffix(".generate")
        return self.name or (stem if NAME.fullmatch(stem) else "model")

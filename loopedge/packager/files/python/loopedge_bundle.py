"""Run the model of a bundle: numpy and onnxruntime, nothing else.

    import loopedge_bundle

    bundle = loopedge_bundle.load("path/to/bundle")
    outputs = bundle.run(window)  # a numpy array, or one by the name of each input

``manifest.json`` says what the model takes; this file checks it, so that a mistake is an error and not a wrong number.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import loopedge_text
import numpy as np
from loopedge_denormals import DenormalsAreZero
from loopedge_files import BundleError, check_files, read_manifest
from loopedge_session import CPU, check_runtime, open_session, short_name
from loopedge_vectors import measure, passes, read_array

__all__ = [
    "CPU",
    "Bundle",
    "BundleError",
    "check_files",
    "load",
    "measure",
    "passes",
    "read_array",
    "read_manifest",
]

Array = np.ndarray[Any, Any]


def load(
    folder: str | Path | None = None,
    *,
    verify: str = "full",
    provider: str = CPU,
    model: str | None = None,
    threads: int | None = None,
) -> Bundle:
    """Open a bundle.

    Args:
        folder: The folder that holds ``manifest.json``; default: the one above this file.
        verify: ``full``: sizes and SHA-256 of the manifest and of every file that is used; ``size``: sizes alone.
        provider: An execution provider of onnxruntime, as ``cpu``, ``cuda`` or ``openvino``. It runs the form of the model
            that the bundle holds for it.
        model: The id of a model in the manifest; default: the one for Python.
        threads: Threads inside an operator; default: onnxruntime's own choice.

    Raises:
        BundleError: A file is missing or another one, the manifest is newer than this file, or the runtime is too old.
    """
    place = Path(folder) if folder is not None else Path(__file__).resolve().parent.parent
    manifest = read_manifest(place, verify=verify)
    chosen = _choose(manifest, provider, model)
    check_files(place, manifest, _used(manifest, chosen), verify=verify)
    return Bundle(place, manifest, chosen, provider=provider, threads=threads)


class Bundle:
    """A model of a bundle, ready to run.

    Attributes:
        folder: The bundle.
        manifest: What it says of itself.
        model: The part of the manifest that describes the form that runs.
        session: Of onnxruntime.
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        model: dict[str, Any],
        *,
        provider: str = CPU,
        threads: int | None = None,
    ) -> None:
        check_runtime(model)
        self.folder, self.manifest, self.model = folder, manifest, model
        self.session = open_session(folder / model["file"], model, provider, threads)
        self.ports = {
            port["name"]: port for port in manifest["inputs"] if port["name"] in model["inputs"]
        }

    @property
    def needed(self) -> list[str]:
        """The inputs that nothing fills in."""
        filled = {"mask", "loops", "tolerance", "noise", "lengths", "past"}
        return [name for name, port in self.ports.items() if port["role"] not in filled]

    def run(
        self,
        inputs: Array | Mapping[str, Any],
        *,
        loops: int | None = None,
        tolerance: float | None = None,
        seed: int = 0,
    ) -> dict[str, Array]:
        """Run the model once.

        Args:
            inputs: An array, or one by the name of each input. A window of fewer positions than the model was trained on
                is padded on the left and masked, where the model takes a mask.
            loops: How often the core runs, where that can be chosen.
            tolerance: The relative change that ends the loop, where the model has such an end.
            seed: Of the noise that some models take.

        Returns:
            The outputs by name.

        Raises:
            BundleError: An input does not fit.
        """
        feeds = self._named(inputs)
        if loops is not None:
            self._set_scalar(feeds, "loops", loops)
        if tolerance is not None:
            self._set_scalar(feeds, "tolerance", tolerance)
        arrays = {name: self._checked(self.ports[name], value) for name, value in feeds.items()}
        self._pad(arrays)
        self._fill(arrays, seed)
        missing = next((name for name in self.ports if name not in arrays), None)
        if missing is not None:
            raise BundleError(f"input {missing} is missing")
        names = [output.name for output in self.session.get_outputs()]
        with DenormalsAreZero():
            return dict(zip(names, self.session.run(names, arrays)))

    def generate(
        self, prompt: str, *, new_tokens: int | None = None, loops: int | None = None
    ) -> str:
        """Return what a language model writes behind a prompt: the most likely token each time.

        Args:
            prompt: The text before it.
            new_tokens: Tokens at most; default: as the manifest says.
            loops: How often the core runs, where that can be chosen.

        Raises:
            BundleError: The bundle writes no text, or the prompt is empty or too long.
        """
        return "".join(self.stream(prompt, new_tokens=new_tokens, loops=loops))

    def stream(
        self, prompt: str, *, new_tokens: int | None = None, loops: int | None = None
    ) -> Iterator[str]:
        """Yield the text of `generate` piece by piece."""
        if self.manifest["decoding"] is None or self.manifest["tokenizer"] is None:
            raise BundleError("the model of this bundle writes no text")
        tokens = loopedge_text.Tokens(self.folder, self.manifest["tokenizer"])
        most = self.manifest["decoding"]["new_tokens"] if new_tokens is None else new_tokens
        found: list[int] = []
        shown = ""
        for token in self.greedy(tokens.encode(prompt), most, loops=loops):
            found.append(token)
            text = tokens.decode(found)
            if not text.endswith("\ufffd"):  # else a character may be cut in the middle
                yield text[len(shown) :]
                shown = text
        if len(tokens.decode(found)) > len(shown):
            yield tokens.decode(found)[len(shown) :]

    def greedy(self, ids: list[int], new_tokens: int, *, loops: int | None = None) -> Iterator[int]:
        """Yield the ids of the most likely tokens behind those of a prompt."""
        ends = set((self.manifest["tokenizer"] or {}).get("end_ids", ()))
        array = self._checked(self.ports["input_ids"], [ids] if ids else np.zeros((1, 0), np.int64))
        cache = self._cache(array, loops)
        return loopedge_text.greedy(cache, array[0].tolist(), new_tokens, ends)

    def logits(self, ids: Any, *, loops: int | None = None) -> Array:
        """Return the logits after the last id of a text, float32 (1, 1, vocabulary).

        Args:
            ids: int64 (1, sequence).
            loops: How often the core runs, where that can be chosen.
        """
        return self.begin(ids, loops=loops)[1]

    def begin(self, ids: Any, *, loops: int | None = None) -> tuple[loopedge_text.Cache, Array]:
        """Return the cache of a text, and the logits after its last id; arguments are those of `logits`."""
        array = self._checked(self.ports["input_ids"], ids)
        cache = self._cache(array, loops)
        return cache, cache.add(array[0])

    def _cache(self, ids: Array, loops: int | None) -> loopedge_text.Cache:
        if len(ids) != 1:
            raise BundleError(f"a cache holds one text, {len(ids)} were given")
        self._check_length(self.ports["input_ids"], ids.shape[1])
        if loops is not None:
            if not self.manifest["loops"]["dynamic"] or self.model["loops"] is not None:
                self._refuse_loops(loops)
            else:
                self._check_loops(int(loops))
        return loopedge_text.Cache(self.session, self.manifest, loops)

    def check_vectors(self) -> Iterator[dict[str, Any]]:
        """Run the test vectors of the bundle; yield what was measured of each, and whether it passes."""
        for vector in self.manifest["vectors"]:
            files = [each["file"] for each in (*vector["inputs"], *vector["outputs"])]
            check_files(self.folder, self.manifest, files)
            inputs = {each["name"]: read_array(self.folder, each) for each in vector["inputs"]}
            outputs = {each["name"]: read_array(self.folder, each) for each in vector["outputs"]}
            loops = inputs.get("loops")
            if loops is not None and self.model["loops"] not in (None, int(loops.item())):
                continue  # this form fixes another loop count
            found = self.run_vector(inputs, outputs)
            check = vector["check"]
            measured = measure(
                check["kind"], list(outputs.values()), [found[name] for name in outputs]
            )
            yield {
                "vector": vector["name"],
                "check": check["kind"],
                "limit": check["limit"],
                "measured": measured,
                "passed": passes(check["kind"], measured, check["limit"]),
            }

    def run_vector(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Return the outputs for the inputs of a test vector, by name."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # vectors also run loop counts that no training has seen
            if self.manifest["decoding"] is None:
                return self.run(inputs)
            loops = int(inputs["loops"].item()) if "loops" in inputs else None
            if "completion" not in outputs:
                return {"logits": self.logits(inputs["input_ids"], loops=loops)}
            ids, wanted = inputs["input_ids"][0].tolist(), outputs["completion"].shape[1]
            found = list(self.greedy(ids, wanted, loops=loops))
            return {"completion": np.array([found], np.int64)}

    def _named(self, inputs: Array | Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(inputs, Mapping):
            if len(self.needed) != 1:
                raise BundleError(
                    f"one array is not enough, the model takes {', '.join(self.needed)}"
                )
            return {self.needed[0]: inputs}
        unknown = next((name for name in inputs if name not in self.ports), None)
        if unknown == "loops":
            self._refuse_loops(inputs["loops"])
            return {name: value for name, value in inputs.items() if name != "loops"}
        if unknown is not None:
            raise BundleError(
                f"there is no input {unknown}, the model takes {', '.join(self.ports)}"
            )
        return dict(inputs)

    def _set_scalar(self, feeds: dict[str, Any], role: str, value: float) -> None:
        name = next((name for name, port in self.ports.items() if port["role"] == role), None)
        if name is not None:
            feeds[name] = value
        elif role == "loops":
            self._refuse_loops(value)
        else:
            raise BundleError("the model takes no tolerance")

    def _refuse_loops(self, value: Any) -> None:
        """Refuse another loop count than that of a form that fixes it."""
        fixed = self.model["loops"]
        if fixed is None or int(value) != fixed:
            raise BundleError(
                f"loops is {value}, {self.model['file']} runs {fixed or 'a fixed number of'} loops"
            )

    def _checked(self, port: Mapping[str, Any], value: Any) -> Array:
        """Return a value as the array that an input takes."""
        name, dtype = port["name"], np.dtype(port["dtype"])
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or (dtype.kind in "iu" and array.dtype.kind == "f"):
            raise BundleError(f"input {name} is {array.dtype}, {dtype} is needed")
        if dtype.kind in "iu" and array.size:
            limits = np.iinfo(dtype)
            wrong = next(
                (n for n in (array.min(), array.max()) if not limits.min <= n <= limits.max), None
            )
            if wrong is not None:
                raise BundleError(f"input {name} holds {wrong}, {dtype} is needed")
        with np.errstate(over="ignore", invalid="ignore"):
            cast = np.ascontiguousarray(array, dtype).reshape(array.shape)
        shape = port["shape"]
        sizes: dict[int, int] = dict(enumerate(cast.shape))
        fits = len(sizes) == len(shape) and all(
            not isinstance(axis, int) or sizes[place] == axis for place, axis in enumerate(shape)
        )
        if not fits or 0 in cast.shape:
            needed = ", ".join(map(str, shape))
            raise BundleError(f"input {name} has shape {cast.shape}, ({needed}) is needed")
        self._check_values(port, cast)
        if port["role"] == "loops":
            self._check_loops(int(cast.item()))
        if port["role"] == "tolerance" and cast.item() < self.manifest["tolerance"]["least"]:
            raise BundleError(f"tolerance is {cast.item()}, at least 0 is needed")
        return cast

    def _check_values(self, port: Mapping[str, Any], array: Array) -> None:
        name, vocabulary = port["name"], port["vocabulary"]
        if array.dtype.kind == "f" and not port.get("any_value"):
            missing = self.manifest["missing_values"] and port["role"] == "values"
            wrong = np.isinf(array) if missing else ~np.isfinite(array)
            if wrong.any():
                place = tuple(int(place) for place in np.argwhere(wrong)[0])
                raise BundleError(
                    f"input {name} holds {array[place]} at {place}, finite numbers are needed"
                )
        ids = vocabulary is not None and array.dtype.kind in "iu"
        if ids and (array.min() < 0 or array.max() >= vocabulary):
            raise BundleError(
                f"input {name} holds ids from {array.min()} to {array.max()}, 0 to {vocabulary - 1} are allowed"
            )
        if port["role"] == "mask" and not np.isin(array, (0, 1)).all():
            raise BundleError(f"input {name} holds more than 0 and 1")

    def _check_loops(self, loops: int) -> None:
        known = self.manifest["loops"]
        least, most = known["range"]
        if loops < 1 or (known["most"] is not None and loops > known["most"]):
            raise BundleError(f"loops is {loops}, 1 to {known['most'] or 'any number'} are allowed")
        if not least <= loops <= most:
            warnings.warn(
                f"{loops} loops, the model was trained with {least if least == most else f'{least} to {most}'}",
                stacklevel=4,
            )

    def _pad(self, arrays: dict[str, Array]) -> None:
        """Pad short windows on the left to the context, as in training, and add the mask; check lengths."""
        mask = next((port["name"] for port in self.ports.values() if port["role"] == "mask"), None)
        for name, port in self.ports.items():
            if name not in arrays or "sequence" not in port["shape"] or name == mask:
                continue
            array, axis = arrays[name], port["shape"].index("sequence")
            length = array.shape[axis]
            self._check_length(port, length)
            kept = np.ones(array.shape[:2], np.int64)
            if mask is not None and mask in arrays:
                kept = arrays[mask]
                if kept.shape != array.shape[:2]:
                    raise BundleError(
                        f"input {mask} has shape {kept.shape}, {array.shape[:2]} is needed"
                    )
            if port["role"] == "values" and mask is not None:
                arrays[name], kept = self._padded(port, array, kept)
            if mask is not None:
                arrays[mask] = np.ascontiguousarray(kept, np.dtype(self.ports[mask]["dtype"]))

    def _padded(self, port: Mapping[str, Any], array: Array, mask: Array) -> tuple[Array, Array]:
        task = self.manifest["task"] or {}
        context, mean = task.get("context"), task.get("mean")
        if context is None or mean is None:
            return array, mask
        if not mask[:, -1].all():
            raise BundleError(
                "the mask hides the last position, where the model answers: pad on the left"
            )
        if mask.sum(axis=1).min() < (port["min_length"] or 1):
            raise BundleError(
                f"a window has {mask.sum(axis=1).min()} positions, the model was trained on {port['min_length']} at least"
            )
        more = context - array.shape[1]
        if more <= 0:
            return array, mask
        batch = array.shape[0]
        padding = np.broadcast_to(np.asarray(mean).astype(array.dtype), (batch, more, len(mean)))
        return np.concatenate([padding, array], axis=1), np.pad(mask, ((0, 0), (more, 0)))

    def _check_length(self, port: Mapping[str, Any], length: int) -> None:
        exact, least, most = port["exact_length"], port["min_length"], port["max_length"]
        if exact is not None and length != exact:
            raise BundleError(f"input {port['name']} has {length} positions, {exact} are needed")
        if (least is not None and length < least) or (most is not None and length > most):
            allowed = f"{least or 1} to {most}" if most is not None else f"at least {least}"
            raise BundleError(f"input {port['name']} has {length} positions, {allowed} are allowed")

    def _fill(self, arrays: dict[str, Array], seed: int) -> None:
        """Add the loop count, the tolerance and noise that were left out."""
        sizes: dict[str, int] = {}
        for name, array in arrays.items():
            for axis, size in zip(self.ports[name]["shape"], array.shape):
                if isinstance(axis, str) and sizes.setdefault(axis, size) != size:
                    raise BundleError(
                        f"input {name} has {size} along {axis}, another input has {sizes[axis]}"
                    )
        generator = np.random.default_rng(seed)
        for name, port in self.ports.items():
            dtype = np.dtype(port["dtype"])
            if name in arrays:
                continue
            if port["role"] == "loops" and self.manifest["loops"]["default"] is not None:
                arrays[name] = np.array(self.manifest["loops"]["default"], dtype).reshape(
                    port["shape"]
                )
            elif port["role"] == "tolerance":
                arrays[name] = np.array(self.manifest["tolerance"]["default"], dtype)
            elif port["role"] == "noise":
                shape = [sizes.get(axis, axis) for axis in port["shape"]]
                arrays[name] = (generator.standard_normal(shape) * port["deviation"]).astype(dtype)


def _choose(manifest: Mapping[str, Any], provider: str, model: str | None) -> dict[str, Any]:
    """Return the model that a client runs: by its id, or the one for its provider."""
    models: dict[str, dict[str, Any]] = {each["id"]: each for each in manifest["models"]}
    if model is None:
        client = manifest["clients"].get("python") or next(iter(manifest["clients"].values()))
        model = str(client["providers"].get(short_name(provider), client["model"]))
    if model not in models:
        raise BundleError(f"the bundle holds no model {model}, it holds {', '.join(models)}")
    return models[model]


def _used(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """Return the files that a session of a model reads."""
    tokenizer = (manifest["tokenizer"] or {}).get("file")
    data = [each["file"] for each in model["data"]]
    return [model["file"], *data, *([tokenizer] if tokenizer else [])]

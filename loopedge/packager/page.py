"""The page of a bundle: for a developer who does not know ONNX."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

from loopedge.files.staging import CONFIG_SUFFIX
from loopedge.packager.clients import CLIENTS, provider_facts
from loopedge.packager.manifest import ClientName, Manifest, Model, Port
from loopedge.packager.static_files import npm_package
from loopedge.units import size_text

__all__ = ["PAGE_NAME", "page_text"]

PAGE_NAME = "README.md"
WITHOUT_NETWORK = "runtime"


def page_text(manifest: Manifest) -> str:
    """Return the page of a bundle, whose files stand in the manifest."""
    sizes = {file.path: file.bytes for file in manifest.files}
    parts = [
        f"# {manifest.name}\n\n{_about(manifest)}",
        f"## What goes in, what comes out\n\n{_ports(manifest)}",
        *(f"## {title}\n\n{text(manifest)}" for title, text in _sections(manifest)),
        f"## Sizes\n\n{_sizes(manifest, sizes)}",
        f"## Without a network\n\n{_offline(manifest, sizes)}",
        f"## Good to know\n\n{_known(manifest)}",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _about(manifest: Manifest) -> str:
    return (
        f"This folder holds a model and what a program needs to run it: {_purpose(manifest)} `manifest.json` describes it, the "
        "loaders read that file. Each loader compares the files that it opens with their SHA-256, and refuses inputs that the "
        "model was not made for. Copy the folder as it is."
    )


def _purpose(manifest: Manifest) -> str:
    task = manifest.task or {}
    if manifest.decoding is not None:
        return "it goes on with a text."
    if task.get("classes"):
        return f"it tells which of {len(task['classes'])} labels a window of table rows has."
    if task.get("horizon"):
        targets = ", ".join(f"`{name}`" for name in _targets(task))
        return f"it forecasts the next {task['horizon']} values of {targets}."
    name = task.get("name")
    return f"it was trained on the task `{name}`." if name else "it takes arrays and gives arrays."


def _targets(task: Mapping[str, object]) -> list[str]:
    targets = [task["target"]] if "target" in task else task.get("targets", [])
    assert isinstance(targets, list)
    return [str(name) for name in targets]


def _ports(manifest: Manifest) -> str:
    rows = ["| | name | type | shape | |", "|---|---|---|---|---|"]
    cached = manifest.decoding is not None
    for way, ports in (("in", manifest.inputs), ("out", manifest.outputs)):
        for port in ports:
            if cached and port.role in {"past", "present", "lengths"}:
                continue  # the loader's own
            shape = ", ".join(map(str, port.shape))
            rows.append(
                f"| {way} | `{port.name}` | {port.dtype} | ({shape}) | {_meaning(port, manifest)} |"
            )
    return "\n".join([*rows, *_columns(manifest)])


def _meaning(port: Port, manifest: Manifest) -> str:
    task = manifest.task or {}
    lengths = ""
    if port.exact_length is not None:
        lengths = f", {port.exact_length} positions"
    elif port.max_length is not None:
        lengths = f", {port.min_length or 1} to {port.max_length} positions"
    missing = ", NaN where a value is missing" if manifest.missing_values else ""
    words = {
        "values": f"numbers in raw units, the oldest first{lengths}{missing}",
        "ids": f"token ids, 0 to {(port.vocabulary or 1) - 1}{lengths}",
        "mask": "1 where a position counts; may be left out",
        "loops": "how often the block runs; may be left out",
        "tolerance": "the relative change at which it stops; may be left out",
        "noise": "normal numbers; may be left out",
        "logits": f"a score for each of {', '.join(task['classes'])}"
        if task.get("classes")
        else "a score for each id",
        "outputs": f"the next {task['horizon']} values" if task.get("horizon") else "",
        "iterations": "how often the block ran",
    }
    return words.get(port.role, "")


def _columns(manifest: Manifest) -> Iterator[str]:
    """Say in which order the columns of a table stand, and what a short window becomes."""
    task = manifest.task or {}
    if not task.get("context") or not task.get("mean"):
        return
    names = ", ".join(f"`{name}`" for name in [*_targets(task), *task.get("covariates", [])])
    yield f"\nThe last axis holds the columns {names}, in this order. A window is {task['context']} table rows."
    least = task.get("min_context") or task["context"]
    if any(port.role == "mask" for port in manifest.inputs) and least < task["context"]:
        yield f"One of {least} rows at least will do: the loader pads it on the left, as in training."


def _sections(manifest: Manifest) -> Iterator[tuple[str, Callable[[Manifest], str]]]:
    texts: dict[ClientName, Callable[[Manifest], str]] = {
        "web": _web,
        "node": _node,
        "c": _c,
        "python": _python,
    }
    titles = {"web": "In a browser", "node": "In Node", "c": "In C", "python": "In Python"}
    for client in manifest.clients:
        yield titles[client], texts[client]


def _code(kind: str, *lines: str) -> str:
    return "\n".join([f"```{kind}", *lines, "```"])


def _web(manifest: Manifest) -> str:
    names = [] if manifest.clients["web"].runtime_files else [npm_package("onnxruntime-web")]
    if names and manifest.tokenizer is not None and manifest.tokenizer.kind == "tokenizers":
        names.append(npm_package("@huggingface/tokenizers"))
    install = (
        [f"npm install --prefix . {' '.join(names)}   # once, in this folder"] if names else []
    )
    call, comment = "model.run({ inputs })", ""
    if manifest.decoding is not None:
        call = 'model.generate("The ")'
    elif _is_table(manifest):
        call, comment = "model.forecast(rows)", "   // the last table rows, the oldest first"
    return "\n\n".join(
        [
            "Serve this folder, and open its address. The page runs the model and its test vectors:",
            _code("sh", *install, "python3 -m http.server 8000   # http://localhost:8000/"),
            "In a program of your own:",
            _code(
                "js",
                'import * as ort from "onnxruntime-web";',
                'import { load } from "./javascript/loopedge.mjs";',
                "",
                'const model = await load(ort, "./");   // the address of this folder',
                f"const found = await {call};{comment}",
            ),
            "Two things must be right on a server: `.mjs` is sent as `text/javascript`, `.wasm` as `application/wasm`. Several "
            "threads need the headers `Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Embedder-Policy: "
            "require-corp`; without them one thread runs.",
        ]
    )


def _is_table(manifest: Manifest) -> bool:
    task = manifest.task or {}
    return bool(task.get("context") and task.get("mean") and not manifest.decoding)


def _node(manifest: Manifest) -> str:
    has = bool(manifest.clients["node"].runtime_files)
    lines = (
        []
        if has
        else [
            "(cd node && npm install --ignore-scripts)   # once: ONNX Runtime; its script would fetch CUDA"
        ]
    )
    return "\n\n".join(
        [
            _code(
                "sh",
                *lines,
                "node node/example.mjs         # runs it",
                "node node/verify.mjs          # computes the test vectors: exit status 0",
                "node node/bench.mjs > device.json   # time and memory, for `loopedge compare`",
            ),
            "`javascript/loopedge.d.mts` has the types. `node/example.mjs` is the shortest program.",
        ]
    )


def _c(manifest: Manifest) -> str:
    has = bool(manifest.clients["c"].runtime_files)
    where = "" if has else " ORT=/path/to/onnxruntime"
    return "\n\n".join(
        [
            "A C compiler, make, and the library of ONNX Runtime are needed"
            + (", which stands in `runtime/`:" if has else " (one of its releases, unpacked):"),
            _code(
                "sh",
                f"make -C c{where}             # builds verify, bench and example",
                f"make -C c{where} verify      # computes the test vectors: exit status 0",
                "c/build/example .",
                "c/build/bench . > device.json   # time and memory, for `loopedge compare`",
            ),
            "A program takes the files `c/loopedge*` and `c/onnxruntime_c_api.h`; `c/example.c` is the shortest one. "
            + _reduced(manifest),
        ]
    )


def _reduced(manifest: Manifest) -> str:
    model = _model(manifest, "c")
    if model.format != "ort":
        return ""
    stem = f"{PurePosixPath(model.file).parent}/{PurePosixPath(model.file).stem}."
    names = [file.path for file in manifest.files if file.path.startswith(stem)]
    operators = next(name for name in names if name.endswith(CONFIG_SUFFIX))
    return (
        "The model is in ORT format, so a reduced build of ONNX Runtime runs it: build with `--minimal_build extended "
        f"--include_ops_by_config {operators}`. This recipe is from ONNX Runtime's documentation and "
        "was not run here."
    )


def _python(manifest: Manifest) -> str:
    client = manifest.clients["python"]
    install = "python -m pip install -r python/requirements.txt"
    if client.runtime_files:
        install = "python -m pip install --no-index --find-links runtime/python -r python/requirements.txt"
    call = 'bundle.generate("The ")' if manifest.decoding else "bundle.run(window)"
    return "\n\n".join(
        [
            _code(
                "sh",
                f"{install}   # once",
                "python python/example.py",
                "python python/verify.py      # computes the test vectors: exit status 0",
                "python python/bench.py > device.json   # time and memory, for `loopedge compare`",
            ),
            _code(
                "python",
                'import sys; sys.path.insert(0, "python")',
                "import loopedge_bundle",
                "",
                'bundle = loopedge_bundle.load(".")',
                f"outputs = {call}"
                + (
                    ""
                    if manifest.decoding
                    else "   # a numpy array, or one by the name of each input"
                ),
            ),
        ]
    )


def _model(manifest: Manifest, client: ClientName, provider: str | None = None) -> Model:
    taken = manifest.clients[client]
    identity = taken.providers.get(provider or "", taken.model)
    return next(model for model in manifest.models if model.id == identity)


def _sizes(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    rows = ["| for | model | size | its runtime |", "|---|---|---|---|"]
    for client, taken in manifest.clients.items():
        for provider in (None, *taken.providers):
            model = _model(manifest, client, provider)
            size = sizes[model.file] + sum(sizes[data.file] for data in model.data)
            shown = f"{CLIENTS[client].title}" + (f", {provider}" if provider else "")
            runtime = CLIENTS[client].runtime_note if provider is None else ""
            rows.append(f"| {shown} | `{model.file}` | {size_text(size)} | {runtime} |")
    return "\n".join(rows)


def _offline(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    held = [client for client, taken in manifest.clients.items() if taken.runtime_files]
    if held:
        total = sum(size for name, size in sizes.items() if name.startswith(f"{WITHOUT_NETWORK}/"))
        return (
            f"`runtime/` holds ONNX Runtime for this bundle ({size_text(total)}), with its licence and those of what is in it. "
            "Nothing is fetched."
        )
    rows = [
        f"- {CLIENTS[client].title}: {taken.runtime}." for client, taken in manifest.clients.items()
    ]
    return "\n".join(
        [
            "The runtime is not in this folder. It comes from:",
            "",
            *rows,
            "",
            "`loopedge package --with-runtime` puts it into the bundle, its licence beside it.",
        ]
    )


def _known(manifest: Manifest) -> str:
    items = [*_loops(manifest), *_checks(manifest), *_releases(manifest), *_engines(manifest)]
    return "\n".join(f"- {item}" for item in [*items, *manifest.notes])


def _loops(manifest: Manifest) -> Iterator[str]:
    loops = manifest.loops
    if loops is None:
        return
    least, most = loops.range
    if loops.dynamic:
        trained = str(least) if least == most else f"{least} to {most}"
        yield (
            f"One block runs again and again: {loops.default} times, unless `loops` says otherwise. It was trained with {trained}; "
            "fewer take less time, and how good they are depends on the training."
        )
    elif loops.default is not None:
        yield f"One block runs {loops.default} times; its weights are stored once."
    if manifest.tolerance is not None:
        yield f"It stops early where its state changes by less than {manifest.tolerance.default:g}; `tolerance` sets that."


def _checks(manifest: Manifest) -> Iterator[str]:
    kinds = {vector.check.kind for vector in manifest.vectors}
    if "relative" in kinds:
        limit = max(v.check.limit for v in manifest.vectors if v.check.kind == "relative")
        yield f"Test vectors pass where outputs differ by at most {limit:g} of the largest value."
    if "sqnr" in kinds:
        yield (
            "The model is quantized: test vectors compare it with the float model, and allow 1 dB less signal to noise than where the "
            "bundle was made."
        )
    if "equal" in kinds:
        yield "A test vector of text passes where the same tokens follow."


def _releases(manifest: Manifest) -> Iterator[str]:
    known = {model.min_runtime for model in manifest.models if model.min_runtime}
    if known:
        newest = max(known, key=lambda text: [int(part) for part in text.split(".")])
        yield f"ONNX Runtime {newest} or later loads it."


def _engines(manifest: Manifest) -> Iterator[str]:
    """Say of the first model which engines fail on it: the others are of the same operators, or made for such engines."""
    first = manifest.models[0]
    for verdict, verb in (
        ("refuses", "do not run"),
        ("slow", "run slowly"),
        ("wrong", "compute wrongly"),
    ):
        reasons: dict[str, list[str]] = {}
        for engine in manifest.engines:
            if engine.verdict == verdict and engine.model in {None, first.id}:
                reasons.setdefault(engine.reason, []).append(engine.engine)
        if reasons:
            named = [f"{', '.join(engines)} ({reason})" for reason, engines in reasons.items()]
            yield f"These engines {verb} `{first.file}`: {'; '.join(named)}."
    for client, taken in manifest.clients.items():
        for provider, identity in taken.providers.items():
            file = next(model.file for model in manifest.models if model.id == identity)
            yield (
                f"With `{provider}` the loader for {CLIENTS[client].title} takes `{file}`: "
                f"{provider_facts(provider).reason}."
            )

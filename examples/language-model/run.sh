#!/usr/bin/env bash
# From text to a model that writes, its weights in four bits and its cache in eight. The text is the Python standard
# library of this machine. Under 15 minutes on two cores; STEPS=20 MODULES=60 SAMPLES=4 show in a minute that it runs.
# Needs `loopedge` in PATH, with the extra train.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Threads that wait give their core away, as in examples/demo/run.sh.
export OMP_WAIT_POLICY=PASSIVE

out=${OUT:-build/language-model}
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n\n' "$1"; }

step "text: modules of the standard library; whole modules are held out"
python examples/language-model/corpus.py "$out" ${MODULES:+--modules "$MODULES"}

step "train: two layers, looped 1 to 4 times: the loop count of each step is drawn"
loopedge train text "$out/train.txt" --validation "$out/validation.txt" --test "$out/test.txt" \
    --context "${CONTEXT:-256}" --positions rotary --d-model "${D_MODEL:-256}" --heads 4 --layers 2 \
    --loops 4 --min-loops 1 --gate-init 1 --init-std 0.06 \
    --steps "${STEPS:-2000}" --batch-size 4 --lr 2e-3 --precision bfloat16 --samples 32 --output "$out/lm.pt"

step "export: one Loop, whose count the device chooses; the same with an exit"
loopedge export "$out/lm.pt" --dynamic-loops --output "$out/lm.onnx"
loopedge export "$out/lm.pt" --exit tolerance=0.3 --output "$out/lm.exit.onnx"

step "quantize: int8, and weights in four bits; the validation text calibrates"
loopedge quantize "$out/lm.onnx" --data "$out/validation.txt" --samples 32 --scheme static --output "$out/lm.int8.onnx"
loopedge quantize "$out/lm.onnx" --data "$out/validation.txt" --samples 32 --scheme weight-int4 --output "$out/lm.int4.onnx"

step "a cache of keys and values: of floats, of integers, of the last loop alone"
loopedge to-generate "$out/lm.onnx" --output "$out/lm.generate.onnx"
for type in int8 int4; do
    loopedge to-generate "$out/lm.onnx" --cache-type "$type" --data "$out/validation.txt" --samples 32 \
        --output "$out/lm.cache-$type.onnx"
done
loopedge to-generate "$out/lm.onnx" --cache last-loop --output "$out/lm.last-loop.onnx"
loopedge to-generate "$out/lm.int4.onnx" --cache-type int8 --data "$out/validation.txt" --samples 32 \
    --output "$out/lm.small.onnx"

step "tokens that exit early: what skipped iterations keep is a copy, or a hole"
for policy in copy holes; do
    loopedge to-generate "$out/lm.exit.onnx" --exit "$policy" --tolerance 0.7 --output "$out/lm.exit-$policy.onnx"
done

step "judge: all of them on the test text"
python examples/language-model/judge.py "$out" --samples "${SAMPLES:-64}"

step "write: weights in four bits, cache in eight"
loopedge generate "$out/lm.small.onnx" --prompt "def read_lines(path):
    " --new-tokens 200 --temperature 0.7 --top-k 40 --seed 1

printf '\nTable and figure: %s, %s\n' "$out/table.md" "$out/perplexity.svg"

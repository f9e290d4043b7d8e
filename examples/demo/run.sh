#!/usr/bin/env bash
# The whole chain on a real series: train a small forecaster of monthly sunspot numbers, export it as
# a Loop and unrolled, quantize it, and profile tied against untied. About two minutes on two cores.
# Called by `make demo`; alone, it needs `loopedge` in PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Threads that wait give their core away. Spinning, the default, is a tenth faster on an idle machine
# and many times slower on a busy one.
export OMP_WAIT_POLICY=PASSIVE

out=build/demo
rm -rf "$out"
mkdir -p "$out"

step() { printf '\n== %s\n\n' "$1"; }

step "train: 48 months in, 12 out; 8 loops, each with its own timestep encoding"
loopedge train series examples/data/sunspots.csv --target sunspots --time month \
    --context 48 --horizon 12 --d-model 128 --loops 8 --timestep sinusoidal --steps 200 --output "$out/demo.pt"

step "export: as one Loop node, and written out once per iteration"
loopedge export "$out/demo.pt" --output "$out/demo.onnx"
loopedge export "$out/demo.pt" --output "$out/demo.unrolled.onnx" --form unrolled

step "quantize: int8 inside the Loop too; what suits this model is chosen on a part of the data"
loopedge quantize "$out/demo.onnx" --output "$out/demo.int8.onnx" --data examples/data/sunspots.csv

step "inspect: what is stored once"
loopedge inspect "$out/demo.onnx"

step "profile: each model in its own process, beside its untied twin"
loopedge profile "$out/demo.onnx" "$out/demo.unrolled.onnx" "$out/demo.int8.onnx" \
    --untied --html "$out/report.html"

printf '\nThe report: %s\n' "$out/report.html"

#!/bin/bash
# On a machine with a GPU: the tests that need one, then what the paper's experiment costs. Both write into OUT.
# bash benchmarks/gpu_check.sh OUT [SECONDS of the second part]
# Without a GPU: python -m benchmarks.gpu_cost --device cpu --small --out FILE --seconds 1800 tries each row but the trace in
# 16-mixed, as it did on 2026-11-27.
set -u
out=${1:?folder for the results}
seconds=${2:-150}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
# -W default: versions that this machine happens to have may warn; an interrupt lets pytest still write its report
timeout -s INT 200 python3 -m pytest -q -m gpu tests/test_gpu.py -W default -p no:cacheprovider --durations=8 \
    -o junit_family=xunit1 --junitxml="$out/tests.xml" > "$out/tests.log" 2>&1
grep -E "^(FAILED|ERROR|E  )|passed|failed|skipped" "$out/tests.log" | cut -c1-400 | head -60
timeout $((seconds + 40)) python3 -m benchmarks.gpu_cost --out "$out/cost.json" --seconds "$seconds" 2>&1 \
    | grep -v "Epoch\|^$" | tee "$out/cost.log"
timeout 70 python3 -m benchmarks.gpu_cost --out "$out/cost.json" --seconds 40 --only "tries, batch 4" "tries, batch 16" \
    2>&1 | tee -a "$out/cost.log"

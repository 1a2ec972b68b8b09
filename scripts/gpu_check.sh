#!/usr/bin/env bash
# All that needs a GPU, checked and measured in one call of at most LIMIT seconds.
#
#     bash scripts/gpu_check.sh OUT                       # OUT: folder for what is found
#     ONLY="compiled predict" bash scripts/gpu_check.sh OUT   # some parts; see scripts/gpu_check.py
#     DEVICE=cpu SMALL=1 LIMIT=1500 bash scripts/gpu_check.sh OUT  # tries it where there is no GPU
#
# No trainer's step waits for the GPU, half precision and compiled networks train, processes train
# together; then steps in 2d and 3d beside nnU-Net's own trainer, augmentation, predictions, compiled
# steps and checkpoints are timed. What takes longer than its share of the time is stopped and said
# to be. Variables: DEVICE (cuda), PYTHON (python), LIMIT (230 seconds), ONLY (parts), SMALL.
set -uo pipefail
OUT=${1:?which folder? bash scripts/gpu_check.sh OUT}
HERE="$(cd "$(dirname "$0")" && pwd)"
export PYTHONPATH="$(dirname "$HERE")${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=1 nnUNet_def_n_proc=1 PYTORCH_NVML_BASED_CUDA_CHECK=1
LIMIT=${LIMIT:-230}
words=("$OUT" --device "${DEVICE:-cuda}" --limit "$LIMIT" --began "$(date +%s.%N)")
if [ -n "${ONLY:-}" ]; then read -ra only <<<"$ONLY" && words+=(--only "${only[@]}"); fi
if [ -n "${SMALL:-}" ]; then words+=(--small); fi
timeout -k 2 "$LIMIT" "${PYTHON:-python}" "$HERE/gpu_check.py" "${words[@]}"

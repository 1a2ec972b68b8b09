#!/usr/bin/env bash
# All that needs a GPU, checked and measured in one call of about nine minutes.
#
#     bash scripts/gpu_check.sh OUT             # OUT: folder for what is found
#     DEVICE=cpu bash scripts/gpu_check.sh OUT  # tries this script where there is no GPU
#
# No step waits for the GPU, half precision and compiled networks train, steps in 2d and in 3d
# (patches of left atria, 112 x 112 x 80) beside nnU-Net's own trainer, with and without
# torch.compile, and predictions. What takes longer than its share of the time is stopped and said
# to be; what was found until then stays.
set -uo pipefail
OUT=${1:?which folder? bash scripts/gpu_check.sh OUT}
DEVICE=${DEVICE:-cuda} PYTHON=${PYTHON:-python} HERE="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "$OUT"
failed=0

part() { # part NAME SECONDS COMMAND...
    local name=$1 seconds=$2 began=$SECONDS code
    shift 2
    timeout "$seconds" "$@" >"$OUT/$name.txt" 2>"$OUT/$name.log"
    code=$?
    case $code in
        0) echo "$name: ok after $((SECONDS - began)) s" ;;
        124) echo "$name: stopped after its $seconds s" ;;
        *) echo "$name: FAILED with exit code $code; the end of $name.log:" && tail -n 5 "$OUT/$name.log" ;;
    esac
    if [ $code -ne 0 ]; then failed=1; fi
    cat "$OUT/$name.txt"
}

"$PYTHON" - <<'PYTHON'
import torch
print("torch", torch.__version__, *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
PYTHON
STEP=("$PYTHON" "$HERE/benchmark_step.py" --device "$DEVICE")
LA=(-c 3d_fullres --patch 80 112 112 --shape 96 128 128)
TWO=(-tr SemiBaselineTrainer SemiMeanTeacherTrainer SemiCPSTrainer)
if [ "$DEVICE" = cpu ]; then LA=(-c 3d_fullres); fi
part steps 200 "$PYTHON" "$HERE/check_steps.py" --device "$DEVICE"
export nnUNet_compile=f
part benchmark_2d 90 "${STEP[@]}" -c 2d --full -o "$OUT/benchmark_2d.json"
part benchmark_3d 120 "${STEP[@]}" "${LA[@]}" --rounds 5 -o "$OUT/benchmark_3d.json"
export nnUNet_compile=t
part benchmark_3d_compiled 80 "${STEP[@]}" "${LA[@]}" "${TWO[@]}" --rounds 5 \
    -o "$OUT/benchmark_3d_compiled.json"
unset nnUNet_compile
part predict 50 "$PYTHON" "$HERE/benchmark_predict.py" --size 100 256 256 --device "$DEVICE"
exit $failed

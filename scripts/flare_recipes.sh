#!/usr/bin/env bash
# Follow the recipes of the FLARE challenges from download to small network, on made-up CTs.
#
#     bash scripts/flare_recipes.sh OUT [RECIPE ...]
#
# OUT: a new folder, or one of before, to go on. RECIPE: by default flare22_rounds flare23_partial
# flare24_laptop; each is followed in one command, as copies that differ in nothing but the length of
# the training ($EPOCHS of $STEPS steps), the plan (budget cpu, of whose network a slim one has at
# least a twentieth) and that images may be missing.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# -ge 1 ] || set -- flare22_rounds flare23_partial flare24_laptop
export nnUNet_raw=$out/raw nnUNet_preprocessed=$out/preprocessed nnUNet_results=$out/results
export nnUNet_compile=f EPOCHS=${EPOCHS:-4} STEPS=${STEPS:-25}
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
for year in 22 23; do
    [ -d "$out/FLARE$year" ] || python "$here/flare_tree.py" "$out/FLARE$year" --year "$year"
done
cd "$out"
number=100
for recipe in "$@"; do
    python - "$here/../plans/$recipe.json" "$recipe.json" << 'PYTHON'
import json, os, sys

source, target = sys.argv[1:]
recipe = json.load(open(source, encoding="utf-8"))
recipe["budget"], recipe["options"]["incomplete"] = "cpu", True
recipe["settings"] |= {"epochs": int(os.environ["EPOCHS"]), "steps_per_epoch": int(os.environ["STEPS"])}
recipe["distil"]["share"] = max(0.05, recipe["distil"]["share"])
recipe["settings"] |= {"optimizer": "adam", "initial_lr": 1e-3}
json.dump(recipe, open(target, "w", encoding="utf-8"), indent=4)
PYTHON
    number=$((number + 100))
    distilled=()
    grep -q '"pseudo_labels"' "$recipe.json" && distilled=(--pseudo-labelled $((number + 1)))
    year=22
    [ "${recipe#flare23}" = "$recipe" ] || year=23
    semi_nnunet run "$recipe.json" "$out/FLARE$year" --converted $number ${distilled[@]+"${distilled[@]}"} --device cpu
done

#!/usr/bin/env bash
# Left atrium in 3d, 4 and 8 of 80 scans labelled: the baseline and methods, the published protocol.
#
#     bash scripts/left_atrium.sh [more options of `semi_nnunet crossval`, such as --seeds 3]
#
# Needs a GPU, nnU-Net's three folders and, as data set $SOURCE (501), all 100 scans with labels:
# `semi_nnunet convert la2018 FILES --new-id 501`. Patches of 112 x 112 x 80 (80 112 112 in the order of
# the plans), 2 + 2 a step, final checkpoint, 20 test scans; prints Dice, Jaccard (iou), 95HD and ASD
# in voxels. Run it again to go on where it was interrupted. $SETTINGS (of `semi_nnunet plan --set`; 60
# epochs of 250 steps are as many steps as BCP's), $TRAINERS, $PATCH, $LABELLED and $CONFIGURATION may
# be set.
set -euo pipefail
SOURCE=${SOURCE:-501} SETTINGS=${SETTINGS:-epochs=60} PATCH=${PATCH:-80 112 112} LABELLED=${LABELLED:-4 8}
CONFIGURATION=${CONFIGURATION:-3d_fullres} PLANS=nnUNetPlans_published
TRAINERS=${TRAINERS:-SemiBaselineTrainer SemiMeanTeacherTrainer SemiDiffusionTrainer SemiBCPTrainer}

for count in $LABELLED; do
    set_number=$((SOURCE + 100 + count))
    semi_nnunet split -d "$SOURCE" --new-id "$set_number" --labelled "$count" --published
    semi_nnunet preprocess -d "$set_number" -c "$CONFIGURATION"
    # shellcheck disable=SC2086
    semi_nnunet plan -d "$set_number" -c "$CONFIGURATION" --patch $PATCH --new-plans "$PLANS" \
        --set $SETTINGS
    # shellcheck disable=SC2086
    semi_nnunet crossval -d "$set_number" -c "$CONFIGURATION" -p "$PLANS" -f all -tr $TRAINERS "$@"
    semi_nnunet compare -d "$set_number" -p "$PLANS"
    semi_nnunet report -d "$set_number" -p "$PLANS" -o "left_atrium_$count.html"
    # shellcheck disable=SC2086,SC2206
    references=("$nnUNet_raw"/Dataset${set_number}_*/labelsTs)
    for tests in "$nnUNet_results"/Dataset"${set_number}"_*/*__"$PLANS"*__"$CONFIGURATION"/fold_all/test; do
        echo "in voxels: $tests"
        semi_nnunet evaluate -i "$tests" -r "${references[0]}" -o "$tests/voxels" --voxels
    done
done

#!/usr/bin/env bash
# Nine published methods against the baseline on a data set whose test labels are known, with few labelled cases.
#
#     bash scripts/evidence.sh 504 4 mirror=false [more options of `semi_nnunet crossval`]
#
# 504: number of the data set with all labels; 4: labelled cases, of its published list; then settings
# of `semi_nnunet plan --set`, with commas, or "-". Trains them with three seeds in 2d, within the
# budget of two CPU cores, into data set 504 + 100 + 4; prints the comparison, writes a report.
# Run it again to go on where it was interrupted. $TRAINERS, $SEEDS, $EPOCHS, $PRECISION (bfloat16 is
# faster where `lscpu` names avx512_bf16 or amx_bf16), $SPLIT (instead of --published, such as
# "--seed 1"), $NEW (another number than 608), $PATCH (smaller than the budget's, of images as
# coarse as it needs: "64 64") and $SPACING (in millimetres, instead of the planned one: "4.4 4.4")
# may be set.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2; }
SOURCE=$1 COUNT=$2 SETTINGS=${3//,/ }
shift 3
NEW=${NEW:-$((SOURCE + 100 + COUNT))} SEEDS=${SEEDS:-3} EPOCHS=${EPOCHS:-24} PRECISION=${PRECISION:-none}
SPLIT=${SPLIT:---published} PLANS=nnUNetPlans_$((EPOCHS * 50))
TRAINERS=${TRAINERS:-SemiBaselineTrainer SemiMeanTeacherTrainer SemiUncertaintyAwareTrainer
    SemiMixMatchTrainer SemiFixMatchTrainer SemiUniMatchTrainer SemiCPSTrainer SemiBCPTrainer
    SemiDiffusionTrainer SemiDistillationTrainer}
[ "$SETTINGS" = - ] && SETTINGS=

# shellcheck disable=SC2086
{
    semi_nnunet split -d "$SOURCE" --new-id "$NEW" --labelled "$COUNT" $SPLIT
    semi_nnunet preprocess -d "$NEW" -c 2d
    semi_nnunet plan -d "$NEW" --budget cpu ${PATCH:+--patch $PATCH} ${SPACING:+--spacing $SPACING} --new-plans "$PLANS" \
        --set mixed_precision="$PRECISION" epochs="$EPOCHS" $SETTINGS
    semi_nnunet preprocess -d "$NEW" -c 2d -p "$PLANS" # its spacing may be another
    semi_nnunet crossval -d "$NEW" -c 2d -p "$PLANS" -f all --seeds "$SEEDS" --device cpu -tr $TRAINERS "$@"
    semi_nnunet compare -d "$NEW" -p "$PLANS"
    semi_nnunet report -d "$NEW" -p "$PLANS" -o "evidence_${SOURCE}_${COUNT}_$((EPOCHS * 50)).html"
}

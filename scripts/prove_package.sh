#!/usr/bin/env bash
# Prove that a submission of `semi_nnunet package` is built and run without network, by another user.
#
#     bash scripts/prove_package.sh MODEL IMAGES FOLDER [more options of `semi_nnunet package`]
#
# Needs root, debootstrap, unshare, and a Debian whose Python is the one of this environment. Packages
# MODEL in FOLDER/submission; makes a root file system of Debian packages in FOLDER/root (from the
# mirror that apt uses) and installs the submission in it; runs the challenge's call there as user
# 1000 without network, on IMAGES, and compares every voxel with `semi_nnunet predict`; then with
# broken images among them. With buildah, the image is also built from the Dockerfile, and run.
# Nothing is left out silently; the last line says that all was as it must be.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,11p' "$0"; exit 2; }
model=$1 images=$(cd "$2" && pwd) folder=$3
shift 3
for program in debootstrap unshare chroot semi_nnunet apt-get; do
    command -v "$program" >/dev/null || { echo "needs $program" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 2; }
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
root=$folder/root workspace=$folder/root/workspace

fail() { echo "FAILED: $*" >&2; exit 1; }

# inside USER COMMAND...: in the root file system, without network, with processes of its own.
inside() {
    unshare --mount --net --pid --fork sh -c '
        root=$1 user=$2; shift 2
        mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --bind /sys "$root/sys"
        exec chroot --userspec="$user" "$root" "$@"' sh "$root" "$@"
}

# same OURS THEIRS: every segmentation has the same voxels.
same() {
    python - "$1" "$2" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ours, theirs = ({one.name: one for one in Path(name).iterdir() if one.suffix != ".json"}
                for name in sys.argv[1:])
if not ours or set(ours) != set(theirs):
    sys.exit(f"other files: {sorted(ours)} and {sorted(theirs)}")
for name in ours:
    first, second = (sitk.ReadImage(str(one[name])) for one in (ours, theirs))
    one, other = map(sitk.GetArrayFromImage, (first, second))
    if first.GetOrigin() != second.GetOrigin() or (one != other).any():
        sys.exit(f"{name}: {np.count_nonzero(one != other)} voxels differ")
    print(f"{name}: all {one.size} voxels are the same, labels {np.unique(one).tolist()}")
PYTHON
}

echo "== package"
[ -d "$folder/submission" ] || semi_nnunet package -m "$model" -o "$folder/submission" "$@"
du -sb "$folder/submission" | awk '{print "submission: " $1 " bytes"}'

echo "== root file system"
if [ ! -d "$root" ]; then
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$codename" '$1 == release {print $2; exit}')
    debootstrap --variant=minbase --include=python3 "$codename" "$root.new" "$mirror" >"$folder/debootstrap.log"
    mv "$root.new" "$root"
fi
base=$(du -sb "$root" | cut -f1)

echo "== install, without network"
rm -rf "$root/submission" "$root/opt/submission" "$workspace"
cp -r "$folder/submission" "$root/submission"
inside 0:0 sh /submission/install.sh
rm -rf "$root/submission"
du -sb "$root" | awk -v base="$base" '{print "image: " $1 " bytes, of which the base " base}'

echo "== the challenge's call, user 1000, without network"
inside 1000:1000 /opt/submission/bin/python -c '
import socket, sys
try: socket.create_connection(("192.0.2.1", 80), 2)
except OSError: sys.exit(0)
sys.exit(1)' || fail "there is a network"
cp "$images"/* "$workspace/inputs/"
chmod a+rwx "$workspace/outputs"
inside 1000:1000 /bin/bash -c "cd /workspace && sh predict.sh" || fail "exit status $?"
how=$(python -c '
import json, sys
how = json.load(open(sys.argv[1]))
words = {"exact": "--exact", "fast": "--fast"}.get(how["speed"], "")
print(words, *(["--step-size", str(how["step"])] if how["step"] else []))' "$folder/submission/submission.json")
rm -rf "$folder/predicted"
# shellcheck disable=SC2086
semi_nnunet predict -m "$model" -i "$images" -o "$folder/predicted" --device cpu $how
same "$workspace/outputs" "$folder/predicted" || fail "segmentations differ"
ls -ln "$workspace/outputs" | awk 'NR > 1 && $3 != 1000 {exit 1}' || fail "files are not of user 1000"

echo "== the start, three times, with one image"
one=$(ls "$workspace/inputs" | head -n 1)
find "$workspace/inputs" -type f ! -name "$one" -delete
for _ in 1 2 3; do
    inside 1000:1000 /bin/bash -c "cd /workspace && sh predict.sh" | grep ready
done

echo "== broken images among good ones"
ending=.${one#*.}
: >"$workspace/inputs/empty_0000$ending"
head -c 2000 "$workspace/inputs/$one" >"$workspace/inputs/cut_0000$ending"
cp "$workspace/inputs/$one" "$workspace/inputs/channel_0007$ending"
python -c '
import sys
import numpy as np, SimpleITK as sitk
sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(np.zeros((8, 32, 32), np.int16))] * 2), sys.argv[1])' \
    "$workspace/inputs/four_0000$ending"
rm -f "$workspace/outputs"/*
status=0
inside 1000:1000 /bin/bash -c "cd /workspace && sh predict.sh" 2>"$folder/broken.txt" || status=$?
cat "$folder/broken.txt"
[ "$status" = 1 ] || fail "exit status $status, not 1"
for name in empty cut channel four; do
    grep -q "not predicted: $name" "$folder/broken.txt" || fail "$name is not named"
done
[ "$(ls "$workspace/outputs")" = "${one%_0000*}$ending" ] || fail "outputs: $(ls "$workspace/outputs")"
status=0
inside 1000:1000 /bin/bash -c "cd /workspace && sh predict.sh inputs inputs" || status=$?
[ "$status" = 2 ] || fail "images could be overwritten"

if command -v buildah >/dev/null; then
    echo "== the Dockerfile, by buildah"
    export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
    rm -rf "$root/opt/submission" "$workspace"
    container=$(buildah from scratch)
    buildah add -q "$container" "$root" / >/dev/null
    buildah commit -q "$container" semi-nnunet-base >/dev/null
    buildah rm "$container" >/dev/null
    buildah bud -q --network none --build-arg BASE=localhost/semi-nnunet-base -t semi-nnunet-proof "$folder/submission"
    mkdir -p "$folder/outputs"
    chmod a+rwx "$folder/outputs"
    container=$(buildah from semi-nnunet-proof)
    buildah run --network none -v "$images:/workspace/inputs:ro" -v "$folder/outputs:/workspace/outputs" \
        "$container" /bin/bash -c "sh predict.sh"
    buildah images semi-nnunet-proof
    buildah rm "$container" >/dev/null
    same "$folder/outputs" "$folder/predicted" || fail "segmentations of the image differ"
else
    echo "== buildah is not here: the Dockerfile was not built"
fi
echo "all was as it must be"

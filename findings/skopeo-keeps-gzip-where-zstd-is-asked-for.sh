#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12, package skopeo 1.9.3+ds1-1+b10)
#
# One would guess that `skopeo copy --dest-compress-format zstd` ends with layers in zstd. It does if the destination is empty.
# If the destination already has the layer in gzip, for example under another tag of the same layout, skopeo uses that one, and
# the new tag has gzip. There is no message, and the exit status is 0.
#
# It matters to whoever moves images to zstd layer by layer or keeps both forms in one layout: what a tag contains depends on
# what was copied there before it.
#
# Output seen (the media type of the layer):
#   into an empty layout: application/vnd.oci.image.layer.v1.tar+zstd
#   into a layout that has it in gzip: application/vnd.oci.image.layer.v1.tar+gzip
#
# Needs Debian 12 with skopeo's libraries and umoci (apt-get install skopeo umoci jq), and apt-get. Exit status 1 if this
# changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq skopeo=1.9.3+ds1-1+b10 umoci=0.4.7+ds-3+b7 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
copy() { usr/bin/skopeo --insecure-policy copy -q "$@"; }
layer() { usr/bin/skopeo inspect --raw "oci:$1" | jq -r '.layers[].mediaType'; }

mkdir files
echo content >files/file
usr/bin/umoci init --layout image
usr/bin/umoci new --image image:tag
usr/bin/umoci insert --image image:tag files /

copy --dest-compress-format zstd oci:image:tag oci:empty:new
copy oci:image:tag oci:filled:old
copy --dest-compress-format zstd oci:image:tag oci:filled:new
printf 'into an empty layout: %s\ninto a layout that has it in gzip: %s\n' "$(layer empty:new)" "$(layer filled:new)" | tee seen
diff - seen <<'SEEN'
into an empty layout: application/vnd.oci.image.layer.v1.tar+zstd
into a layout that has it in gzip: application/vnd.oci.image.layer.v1.tar+gzip
SEEN

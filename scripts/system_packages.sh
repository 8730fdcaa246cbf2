#!/bin/sh
# Installs the Debian packages that a napari window needs, when root; otherwise names them.
# On systems without apt there is nothing to do here: Qt's wheels bring what they need.
set -eu
command -v apt-get >/dev/null || exit 0

needed="python3-venv xvfb xauth libgl1 libegl1 libgl1-mesa-dri libdbus-1-3 libglib2.0-0
libfontconfig1 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1
libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 fonts-dejavu-core"
missing=""
for package in $needed; do
    # Newer Debians and Ubuntus added t64 to some names; they still install by the old ones.
    dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null |
        grep -q "ok installed" ||
        missing="$missing $package"
done
# A Python that was not installed by Debian brings its own venv.
if ${PYTHON:-python3} -c "import ensurepip" 2>/dev/null; then
    missing=$(echo "$missing" | sed 's/ python3-venv//')
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
    echo "Installing system packages:$missing"
    # A failing list update of one source must not stop what the others can serve.
    apt-get update -qq || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "These system packages are missing; install them, then run make again:"
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
    exit 1
fi

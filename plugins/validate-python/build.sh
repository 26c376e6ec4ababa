#!/usr/bin/env bash
# Builds validate_python.wasm, a component without any import but ours. Usage: build.sh [OUT]
# The compiler comes from PyPI, once, into a virtual environment under target/.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
version=0.25.1
tools=$target/componentize-py-$version
out=$(realpath -m "${1:-$here/validate_python.wasm}")

if [[ ! -x $tools/bin/componentize-py ]]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$version"
fi
cd "$here"
# --stub-wasi: Python's own wish for files, clocks and random numbers ends in traps, not in imports.
"$tools/bin/componentize-py" --quiet -d "$root/wit" -w transform componentize --stub-wasi -p "$here" -o "$out" plugin
echo "$out  $(stat -c %s "$out") bytes"

#!/usr/bin/env bash
# Shows that validate_python.wasm keeps the golden cases of its twin in Rust. Usage: test.sh [MILLSTREAM]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
millstream=${1:-millstream}
case=$(mktemp -d)
trap 'rm -rf "$case"' EXIT

cp "$root"/tests/cases/clickstream-validate/* "$case/"
# An interpreter takes its time to wake up, and the default deadline is for compiled plugins.
sed -i "s#plugin: .*#plugin: $here/validate_python.wasm\n    limits: {deadline_ms: 2000}#" "$case/pipeline.yaml"
"$millstream" test "$case"

#!/usr/bin/env bash
# Ends the engine that clickhouse-up.sh started on CLICKHOUSE_PORT; --kill ends it as a power cut would.
set -euo pipefail
INFRA_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$INFRA_DIR/lib.sh"

: "${CLICKHOUSE_PORT:=18123}"
: "${CLICKHOUSE_DATA:=$INFRA_STATE/clickhouse-$CLICKHOUSE_PORT}"
pidfile=$CLICKHOUSE_DATA/clickhouse.pid
if [ "${1:-}" = --kill ]; then stop "$pidfile" KILL; else stop "$pidfile"; fi

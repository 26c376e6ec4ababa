#!/usr/bin/env bash
# Starts ClickHouse's engine behind its HTTP interface (clickhouse_embedded.py) and returns once it answers.
# Idempotent: does nothing if it already runs, and restarts on the same data after a stop or a crash. The engine is
# installed first (566 MB, once) into a virtual environment under $INFRA_STATE.
#
#   CLICKHOUSE_PORT   HTTP listener on 127.0.0.1           (default 18123)
#   CLICKHOUSE_DATA   data directory                       (default $INFRA_STATE/clickhouse-$CLICKHOUSE_PORT)
#   CLICKHOUSE_CONFIG a ClickHouse config.xml              (default: one that needs nothing)
#   CLICKHOUSE_USER   NAME:PASSWORD that clients must give (default: nobody has to)
#   CLICKHOUSE_ARGS   more arguments, such as --profile max_insert_block_size=1000
#   --fresh           wipe the data directory first
#   --install         install the engine, and no more
set -euo pipefail
INFRA_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$INFRA_DIR/lib.sh"

: "${CLICKHOUSE_PORT:=18123}"
: "${CLICKHOUSE_DATA:=$INFRA_STATE/clickhouse-$CLICKHOUSE_PORT}"
packages=(chdb-core==26.9.0 clickhouse-cityhash==1.0.2.6 lz4==4.4.5)
venv=$INFRA_STATE/clickhouse-venv
pidfile=$CLICKHOUSE_DATA/clickhouse.pid
log=$CLICKHOUSE_DATA/clickhouse.log

# Whoever comes second waits for the first; the mark is written last, so a half-made environment is made anew.
install() {
  [ "$(cat "$venv/packages" 2>/dev/null)" = "${packages[*]}" ] && return
  (
    flock 9
    [ "$(cat "$venv/packages" 2>/dev/null)" = "${packages[*]}" ] && exit
    say "installing ClickHouse's engine (${packages[0]}) ..."
    python3 -m venv --clear "$venv" || die "no virtual environment can be made (apt-get install python3-venv)"
    "$venv/bin/pip" install -q --disable-pip-version-check --no-deps "${packages[@]}" >&2 || die "pip failed"
    printf '%s\n' "${packages[*]}" >"$venv/packages"
  ) 9>"$venv.lock"
}

answers() { port_open "$CLICKHOUSE_PORT" && grep -q '^ready ' "$log"; }

if [ "${1:-}" = --install ]; then install; exit; fi
if alive "$pidfile"; then say "already running, pid $(cat "$pidfile")"; exit 0; fi
if [ "${1:-}" = --fresh ]; then rm -rf "$CLICKHOUSE_DATA"; fi
if port_open "$CLICKHOUSE_PORT"; then die "port $CLICKHOUSE_PORT is taken"; fi
install
mkdir -p "$CLICKHOUSE_DATA"
: >"$log"
# shellcheck disable=SC2086
launch "$pidfile" "$log" "$venv/bin/python" "$INFRA_DIR/clickhouse_embedded.py" --port "$CLICKHOUSE_PORT" \
  --path "$CLICKHOUSE_DATA/store" ${CLICKHOUSE_CONFIG:+--config-file "$CLICKHOUSE_CONFIG"} \
  ${CLICKHOUSE_USER:+--user "$CLICKHOUSE_USER"} ${CLICKHOUSE_ARGS:-}
await 60 "$pidfile" "$log" answers
say "ClickHouse answers on http://127.0.0.1:$CLICKHOUSE_PORT, pid $(cat "$pidfile")"

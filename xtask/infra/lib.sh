# shellcheck shell=bash
# Shared helpers for the *-up.sh / *-down.sh scripts. Source it, do not run it.
# INFRA_DIR   where these scripts live (set by the caller)
# INFRA_STATE where data, logs, pid files and generated configuration go
#             (default: target/infra in the checkout)
# INFRA_JAVA  java launcher (default: java on PATH; 17 or newer)
: "${INFRA_DIR:?}"
: "${INFRA_STATE:=$(cd "$INFRA_DIR/../.." && pwd)/target/infra}"
: "${INFRA_JAVA:=java}"
mkdir -p "$INFRA_STATE"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# classpath MODULE: prints the runtime class path of $INFRA_DIR/MODULE/pom.xml,
# resolving it with Maven the first time and whenever the pom changes.
classpath() {
  local module=$1 pom=$INFRA_DIR/$1/pom.xml out=$INFRA_STATE/$1.classpath
  if [ ! -s "$out" ] || [ "$pom" -nt "$out" ]; then
    command -v mvn >/dev/null || die "Maven is missing (apt-get install maven openjdk-17-jre-headless)"
    say "resolving $module with Maven ..."
    mvn -q -B -f "$pom" dependency:build-classpath \
      -Dmdep.includeScope=runtime -Dmdep.outputFile="$out.$$" >&2 || die "Maven could not resolve $module"
    mv "$out.$$" "$out"
  fi
  cat "$out"
}

# alive PIDFILE: true when the recorded process still runs.
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# launch PIDFILE LOGFILE CMD...: starts CMD detached from the calling shell.
launch() {
  local pidfile=$1 log=$2; shift 2
  setsid "$@" </dev/null >>"$log" 2>&1 &
  echo $! >"$pidfile"
}

# await SECONDS PIDFILE LOGFILE CHECK...: polls CHECK until it holds.
await() {
  local limit=$1 pidfile=$2 log=$3; shift 3
  local end=$((SECONDS + limit))
  until "$@"; do
    alive "$pidfile" || { tail -n 30 "$log" >&2; die "process died during start-up, see $log"; }
    [ "$SECONDS" -lt "$end" ] || { tail -n 30 "$log" >&2; die "not ready within ${limit}s, see $log"; }
    sleep 0.1
  done
}

# stop PIDFILE [SIGNAL] [SECONDS]: ends the recorded process, then KILL after a wait.
stop() {
  local pidfile=$1 sig=${2:-TERM} limit=${3:-30} pid end
  alive "$pidfile" || { rm -f "$pidfile"; return 0; }
  pid=$(cat "$pidfile")
  kill "-$sig" "$pid"
  end=$((SECONDS + limit))
  while kill -0 "$pid" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || { kill -KILL "$pid" 2>/dev/null || true; break; }
    sleep 0.1
  done
  rm -f "$pidfile"
}

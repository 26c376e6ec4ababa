#!/usr/bin/env bash
# Starts one real Apache Kafka broker (KRaft, combined broker+controller) and
# returns once it answers. Idempotent: does nothing if it already runs, and
# restarts on the same data after a stop or a crash.
#
#   KAFKA_PORT       client listener, PLAINTEXT              (default 19092)
#   KAFKA_CTRL_PORT  controller listener                     (default KAFKA_PORT+1)
#   KAFKA_DATA       data directory                          (default $INFRA_STATE/kafka-$KAFKA_PORT)
#   KAFKA_HEAP       -Xmx/-Xms                               (default 128m; 96m works, 64m is too tight)
#   KAFKA_JVM_OPTS   extra JVM options
#   KAFKA_TIER       1 = C1 compiler only: quicker start, slower under load; 4 = full,
#                    for measurements (default 1)
#   KAFKA_SESSION_MS how long a restart after kill -9 has to wait at most (default 3000)
#   KAFKA_EXTRA      file of extra server.properties lines, appended last
#   KAFKA_LISTENERS_EXTRA / KAFKA_PROTOCOLS_EXTRA
#                    more listeners, e.g. "TLS://127.0.0.1:19094" and "TLS:SSL"
#   KAFKA_FORMAT_ARGS more arguments for the storage format (e.g. --add-scram ...)
#   KAFKA_CDS        0 = no class-data-sharing archive (default 1)
#   KAFKA_CONTROLLER own = the controller is a process of its own, as in production, so that the broker alone can
#                    crash (kafka-down.sh --crash); joint = one process for both (default joint)
#   --fresh          wipe the data directory first
set -euo pipefail
INFRA_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$INFRA_DIR/lib.sh"

: "${KAFKA_PORT:=19092}"
: "${KAFKA_CTRL_PORT:=$((KAFKA_PORT + 1))}"
: "${KAFKA_DATA:=$INFRA_STATE/kafka-$KAFKA_PORT}"
: "${KAFKA_HEAP:=128m}"
: "${KAFKA_JVM_OPTS:=}"
: "${KAFKA_SESSION_MS:=3000}"
: "${KAFKA_CLUSTER_ID:=MkU3OEVBNTcwNTJENDM2Qg}"
pidfile=$KAFKA_DATA/kafka.pid
log=$KAFKA_DATA/kafka.log
conf=$KAFKA_DATA/server.properties

if alive "$pidfile"; then say "already running, pid $(cat "$pidfile")"; exit 0; fi
if [ "${1:-}" = --fresh ]; then rm -rf "$KAFKA_DATA"; fi
if port_open "$KAFKA_PORT"; then die "port $KAFKA_PORT is taken"; fi
mkdir -p "$KAFKA_DATA"
cp=$(classpath kafka)

roles=broker,controller; controller=1; controller_listener=,CONTROLLER://127.0.0.1:$KAFKA_CTRL_PORT
if [ "${KAFKA_CONTROLLER:-joint}" = own ]; then roles=broker; controller=2; controller_listener=; fi
cat >"$conf" <<P
process.roles=$roles
node.id=1
controller.quorum.voters=$controller@127.0.0.1:$KAFKA_CTRL_PORT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT$controller_listener${KAFKA_LISTENERS_EXTRA:+,$KAFKA_LISTENERS_EXTRA}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT${KAFKA_PROTOCOLS_EXTRA:+,$KAFKA_PROTOCOLS_EXTRA}
log.dirs=$KAFKA_DATA/logs

# one node: every internal topic has one replica
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# small and fast for tests
offsets.topic.num.partitions=5
transaction.state.log.num.partitions=5
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=6000
group.min.session.timeout.ms=1000
# a transaction whose producer died is ended within a second of its time-out
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.consumer.min.assignment.interval.ms=0
group.consumer.assignment.interval.ms=0
group.streams.initial.rebalance.delay.ms=0
# a broker that was killed may come back only when its old session has ended
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=$KAFKA_SESSION_MS
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
log.index.size.max.bytes=1048576
P
if [ -n "${KAFKA_EXTRA:-}" ]; then cat "$KAFKA_EXTRA" >>"$conf"; fi

jvm=(-Xms"$KAFKA_HEAP" -Xmx"$KAFKA_HEAP" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError
     -XX:TieredStopAtLevel="${KAFKA_TIER:-1}" -Djava.awt.headless=true
     -Dlog4j2.configurationFile="$INFRA_DIR/kafka/log4j2.properties")

# Formatting costs a whole JVM start, so its result (two small files) is kept and copied.
if [ ! -f "$KAFKA_DATA/logs/meta.properties" ]; then
  template=$INFRA_STATE/kafka-formatted
  if [ -z "${KAFKA_FORMAT_ARGS:-}" ] && [ -d "$template" ] && [ "$template" -nt "$INFRA_STATE/kafka.classpath" ] \
      && grep -q "^cluster.id=$KAFKA_CLUSTER_ID\$" "$template/meta.properties"; then
    cp -r "$template" "$KAFKA_DATA/logs"
  else
    # shellcheck disable=SC2086
    "$INFRA_JAVA" -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dinfra.log.level=WARN \
      -Dlog4j2.configurationFile="$INFRA_DIR/kafka/log4j2.properties" -cp "$cp" \
      kafka.tools.StorageTool format -t "$KAFKA_CLUSTER_ID" -c "$conf" ${KAFKA_FORMAT_ARGS:-} >>"$log" 2>&1 \
      || { tail -n 30 "$log" >&2; die "storage format failed"; }
    if [ -z "${KAFKA_FORMAT_ARGS:-}" ] && [ ! -d "$template" ]; then
      cp -r "$KAFKA_DATA/logs" "$template.$$" && { mv -T "$template.$$" "$template" 2>/dev/null || rm -rf "$template.$$"; }
    fi
  fi
fi

# Class-data sharing: the first broker that is stopped cleanly leaves an archive, later ones start from it.
if [ "${KAFKA_CDS:-1}" = 1 ]; then
  archive=$INFRA_STATE/kafka.jsa
  if [ -f "$archive" ] && [ "$archive" -nt "$INFRA_STATE/kafka.classpath" ]; then
    jvm+=(-XX:SharedArchiveFile="$archive")
  else
    jvm+=(-XX:ArchiveClassesAtExit="$KAFKA_DATA/kafka.jsa")
  fi
fi

if [ "$controller" = 2 ] && ! alive "$KAFKA_DATA/controller.pid"; then
  own=$KAFKA_DATA/controller.properties
  sed -e 's/^process.roles=.*/process.roles=controller/' -e 's/^node.id=.*/node.id=2/' \
    -e "s|^listeners=.*|listeners=CONTROLLER://127.0.0.1:$KAFKA_CTRL_PORT|" -e '/^inter.broker.listener.name=/d' \
    -e "s|^log.dirs=.*|log.dirs=$KAFKA_DATA/controller|" "$conf" >"$own"
  if [ ! -f "$KAFKA_DATA/controller/meta.properties" ]; then
    "$INFRA_JAVA" "${jvm[@]}" -Dinfra.log.level=WARN -cp "$cp" \
      kafka.tools.StorageTool format -t "$KAFKA_CLUSTER_ID" -c "$own" >>"$log" 2>&1 \
      || { tail -n 30 "$log" >&2; die "storage format of the controller failed"; }
  fi
  : >"$KAFKA_DATA/controller.log"
  launch "$KAFKA_DATA/controller.pid" "$KAFKA_DATA/controller.log" "$INFRA_JAVA" "${jvm[@]}" -cp "$cp" kafka.Kafka "$own"
fi

: >"$log.start"
# shellcheck disable=SC2086
launch "$pidfile" "$log.start" "$INFRA_JAVA" "${jvm[@]}" $KAFKA_JVM_OPTS -cp "$cp" kafka.Kafka "$conf"
await 90 "$pidfile" "$log.start" grep -q 'Kafka Server started' "$log.start"
say "kafka ready on 127.0.0.1:$KAFKA_PORT, pid $(cat "$pidfile"), log $log.start"

#!/usr/bin/env python3
"""A contender: a topic into a table, as one would write it in Python with confluent-kafka and clickhouse-connect.

At least once: a block's offsets are committed after its insert. With --rules the clickstream's rules come first, and what
they turn away goes to --dead-letters. `cargo xtask bench clickhouse` installs what it needs and runs it.
"""
import argparse, json, time

import clickhouse_connect
from confluent_kafka import Consumer, Producer, TopicPartition

COLUMNS = ["event_type", "user_id", "page_url", "button_id", "timestamp", "country", "device_type", "region",
           "is_mobile", "schema_version", "_topic", "_partition", "_offset"]
REGIONS = {"US": "americas", "CA": "americas", "UK": "europe", "DE": "europe", "FR": "europe", "JP": "asia"}
BLOCKED = {"XX", "ZZ"}
POLL_RECORDS = 10_000


def arguments():
    parser = argparse.ArgumentParser()
    for name in "brokers input group url database".split():
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--dead-letters")
    parser.add_argument("--rules", action="store_true")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--block-rows", type=int, default=100_000)
    parser.add_argument("--flush-ms", type=int, default=1_000)
    return parser.parse_args()


def reason(text):
    """The event, or None, and why it is turned away, or None."""
    try:
        event = json.loads(text)
    except ValueError as error:
        return None, str(error)
    if event["user_id"] < 0:
        return None, "negative_user_id"
    if event["country"] in BLOCKED:
        return None, "blocked_country"
    event["schema_version"] = max(event.get("schema_version") or 2, 2)
    event["region"] = REGIONS.get(event["country"], "other")
    device = event.get("device_type")
    event["is_mobile"] = None if device is None else device == "mobile"
    return event, None


def main():
    args = arguments()
    consumer = Consumer({
        "bootstrap.servers": args.brokers, "group.id": args.group, "isolation.level": "read_committed",
        "auto.offset.reset": "earliest", "enable.auto.commit": False, "enable.auto.offset.store": False,
        "fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 16384})
    producer = Producer({"bootstrap.servers": args.brokers, "enable.idempotence": True, "compression.type": "lz4",
                         "linger.ms": 100, "queue.buffering.max.messages": 1_000_000}) if args.rules else None
    client = clickhouse_connect.get_client(dsn=f"{args.url}/{args.database}", compress="lz4")
    consumer.subscribe([args.input])
    rows, offsets, records, done, since = [], {}, 0, 0, time.monotonic()
    while done < args.records:
        for message in consumer.consume(POLL_RECORDS, 0.05):
            if message.error():
                raise SystemExit(str(message.error()))
            records += 1
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            offsets[partition] = offset + 1
            event, why = reason(message.value()) if args.rules else (json.loads(message.value()), None)
            if event is None:
                producer.produce(args.dead_letters, message.value(), message.key(), headers={
                    "__connect.errors.topic": topic, "__connect.errors.partition": str(partition),
                    "__connect.errors.offset": str(offset), "__connect.errors.exception.message": why})
                continue
            rows.append((event["event_type"], event["user_id"], event["page_url"], event["button_id"],
                         event["timestamp"], event["country"], event.get("device_type"), event["region"],
                         event.get("is_mobile"), event["schema_version"], topic, partition, offset))
        waited = (time.monotonic() - since) * 1e3 >= args.flush_ms
        if records and (len(rows) >= args.block_rows or done + records >= args.records or waited):
            if rows:
                client.insert("events", rows, column_names=COLUMNS)
            if producer:
                producer.flush()
            places = [TopicPartition(args.input, partition, offset) for partition, offset in offsets.items()]
            consumer.commit(offsets=places, asynchronous=False)
            done, rows, records, offsets = done + records, [], 0, {}
        if not records:
            since = time.monotonic()
    consumer.close()


if __name__ == "__main__":
    main()

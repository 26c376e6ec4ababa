// The windows of the bench with Kafka Streams' DSL: clicks per country in five minutes, or per user in sessions.
//
// Windows.java BROKERS INPUT OUTPUT APPLICATION STATE_FOLDER tumbling|session COMMIT_MS suppress|emit
package peers;

import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.SessionStore;
import org.apache.kafka.streams.state.WindowStore;

public final class Windows {
    private static final Duration SIZE = Duration.ofMinutes(5);
    private static final Duration GAP = Duration.ofMinutes(30);
    private static final Duration DISORDER = Duration.ofSeconds(10);

    /** What is needed of a record. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Click(long timestamp) {
    }

    /** The row of a closed window. */
    @JsonInclude(JsonInclude.Include.NON_NULL)
    record Row(String country, Long user_id, String window_start, String window_end, long events) {
    }

    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final ObjectReader CLICKS = MAPPER.readerFor(Click.class);
    private static final ObjectWriter ROWS = MAPPER.writerFor(Row.class);

    private Windows() {
    }

    public static void main(String[] args) throws Exception {
        String input = args[1];
        String output = args[2];
        boolean session = args[5].equals("session");
        boolean emit = args[7].equals("emit");
        StreamsBuilder builder = new StreamsBuilder();
        Consumed<String, Click> clicks = Consumed.with(Serdes.String(), clickSerde())
            .withTimestampExtractor((record, highest) -> ((Click) record.value()).timestamp() * 1_000);
        KGroupedStream<String, Click> grouped =
            builder.stream(input, clicks).groupByKey(Grouped.with(Serdes.String(), clickSerde()));
        KTable<Windowed<String>, Long> counts = session ? sessions(grouped, emit) : tumbling(grouped, emit);
        counts.toStream()
            .map((window, events) -> KeyValue.pair(window.key(), row(session, window, events)))
            .to(output, Produced.with(Serdes.String(), rowSerde()));
        run(new KafkaStreams(builder.build(), settings(args)));
    }

    private static KTable<Windowed<String>, Long> tumbling(KGroupedStream<String, Click> grouped, boolean emit) {
        var windowed = grouped.windowedBy(TimeWindows.ofSizeAndGrace(SIZE, DISORDER));
        Materialized<String, Long, WindowStore<Bytes, byte[]>> store = Materialized.as("counts");
        if (emit) {
            return windowed.emitStrategy(EmitStrategy.onWindowClose()).count(store);
        }
        return windowed.count(store).suppress(untilClosed());
    }

    private static KTable<Windowed<String>, Long> sessions(KGroupedStream<String, Click> grouped, boolean emit) {
        var windowed = grouped.windowedBy(SessionWindows.ofInactivityGapAndGrace(GAP, DISORDER));
        Materialized<String, Long, SessionStore<Bytes, byte[]>> store = Materialized.as("counts");
        if (emit) {
            return windowed.emitStrategy(EmitStrategy.onWindowClose()).count(store);
        }
        return windowed.count(store).suppress(untilClosed());
    }

    private static Suppressed<Windowed<?>> untilClosed() {
        return Suppressed.untilWindowCloses(BufferConfig.unbounded()).withName("closed");
    }

    private static Row row(boolean session, Windowed<String> window, long events) {
        Instant start = Instant.ofEpochMilli(window.window().start());
        // A session's end is its last record's time.
        Instant end = Instant.ofEpochMilli(window.window().end()).plus(session ? GAP : Duration.ZERO);
        String country = session ? null : window.key();
        Long user = session ? Long.valueOf(window.key()) : null;
        return new Row(country, user, start.toString(), end.toString(), events);
    }

    private static Properties settings(String[] args) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[4]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[6]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256 << 20);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        return settings;
    }

    /** Runs until it is asked to end. */
    private static void run(KafkaStreams streams) throws InterruptedException {
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                Runtime.getRuntime().halt(1);
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(Duration.ofSeconds(30));
            // A signal is how it is meant to end.
            Runtime.getRuntime().halt(0);
        }));
        streams.start();
        ended.await();
    }

    private static Serde<Click> clickSerde() {
        return Serdes.serdeFrom(
            (topic, click) -> {
                throw new SerializationException("clicks are only read");
            },
            (topic, bytes) -> {
                try {
                    return CLICKS.readValue(bytes);
                } catch (IOException why) {
                    throw new SerializationException(why);
                }
            });
    }

    private static Serde<Row> rowSerde() {
        return Serdes.serdeFrom(
            (topic, row) -> {
                try {
                    return ROWS.writeValueAsBytes(row);
                } catch (JsonProcessingException why) {
                    throw new SerializationException(why);
                }
            },
            (topic, bytes) -> {
                throw new SerializationException("rows are only written");
            });
    }
}

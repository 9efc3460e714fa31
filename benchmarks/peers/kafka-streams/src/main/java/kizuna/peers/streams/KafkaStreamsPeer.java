package kizuna.peers.streams;

import kizuna.peers.work.Place;

import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.BytesDeserializer;
import org.apache.kafka.common.serialization.BytesSerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.state.Stores;

import java.io.IOException;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;

/** The peer on Kafka Streams: one thread, exactly once, customers in RocksDB. README.md says why each setting is so. */
public final class KafkaStreamsPeer {
    static final String CUSTOMERS = "customers";

    private static final long COMMIT_MS = 1_000;
    private static final long CACHE_BYTES = 512L * 1024 * 1024;
    private static final int BATCH_BYTES = 256 * 1024;

    private KafkaStreamsPeer() {}

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Place place = Place.read();
        KafkaStreams streams = new KafkaStreams(topology(place), settings(place));
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            failed.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(15))));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static Topology topology(Place place) {
        return new Topology()
                .addSource("purchases", new BytesDeserializer(), new ByteArrayDeserializer(), place.input())
                .addProcessor("tiers", () -> new TierProcessor(place.program()), "purchases")
                .addStateStore(
                        Stores.keyValueStoreBuilder(
                                        Stores.persistentKeyValueStore(CUSTOMERS), Serdes.Bytes(), Serdes.ByteArray())
                                .withCachingEnabled(),
                        "tiers")
                .addSink("changes", place.output(), new BytesSerializer(), new ByteArraySerializer(), "tiers");
    }

    private static Properties settings(Place place) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, place.group());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, place.brokers());
        settings.put(StreamsConfig.STATE_DIR_CONFIG, place.state().toString());
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT_MS);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, CACHE_BYTES);
        settings.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, FilteredMemtables.class);
        settings.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, StreamsConfig.MAX_TASK_IDLE_MS_DISABLED);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), BATCH_BYTES);
        return settings;
    }
}

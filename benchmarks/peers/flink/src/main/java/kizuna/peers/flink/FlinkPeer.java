package kizuna.peers.flink;

import kizuna.peers.work.Place;
import kizuna.peers.work.Purchase;
import kizuna.peers.work.TierChange;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestartStrategyOptions;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.TransactionNamingStrategy;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;

import java.time.Duration;

/** The peer on Flink: parallelism 1, exactly once, customers on the heap. README.md says why each setting is so. */
public final class FlinkPeer {
    private static final Duration CHECKPOINT_EVERY = Duration.ofSeconds(1);
    private static final Duration PAUSE = Duration.ofMillis(500);
    private static final int RESTARTS = 3;
    private static final Duration TRANSACTION_TIMEOUT = Duration.ofMinutes(15);

    private FlinkPeer() {}

    public static void main(String[] arguments) throws Exception {
        Place place = Place.read();
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(1, settings(place));
        DataStream<Purchase> purchases =
                flink.fromSource(source(place), WatermarkStrategy.noWatermarks(), "purchases");
        DataStreamUtils.reinterpretAsKeyedStream(purchases, purchase -> purchase.customerId, Types.STRING)
                .process(new TierFunction(place.program()), TypeInformation.of(TierChange.class))
                .sinkTo(sink(place));
        flink.execute(place.group());
    }

    private static Configuration settings(Place place) {
        Configuration settings = new Configuration();
        settings.set(StateBackendOptions.STATE_BACKEND, "hashmap");
        settings.set(TaskManagerOptions.MANAGED_MEMORY_SIZE, MemorySize.ZERO);
        settings.set(CheckpointingOptions.CHECKPOINTING_CONSISTENCY_MODE, CheckpointingMode.EXACTLY_ONCE);
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, CHECKPOINT_EVERY);
        settings.set(CheckpointingOptions.MIN_PAUSE_BETWEEN_CHECKPOINTS, PAUSE);
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, place.state().toUri().toString());
        settings.set(PipelineOptions.OBJECT_REUSE, true);
        settings.set(PipelineOptions.GENERIC_TYPES, false);
        // From the newest checkpoint; what fails again and again ends the process.
        settings.set(RestartStrategyOptions.RESTART_STRATEGY, "fixed-delay");
        settings.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_ATTEMPTS, RESTARTS);
        settings.set(RestartStrategyOptions.RESTART_STRATEGY_FIXED_DELAY_DELAY, Duration.ofSeconds(1));
        return settings;
    }

    private static KafkaSource<Purchase> source(Place place) {
        return KafkaSource.<Purchase>builder()
                .setBootstrapServers(place.brokers())
                .setTopics(place.input())
                .setGroupId(place.group())
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new PurchaseSchema(place.program().currency()))
                .setProperty(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed")
                .build();
    }

    private static KafkaSink<TierChange> sink(Place place) {
        return KafkaSink.<TierChange>builder()
                .setBootstrapServers(place.brokers())
                .setRecordSerializer(new TierChangeSchema(place.output()))
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(place.group())
                .setTransactionNamingStrategy(TransactionNamingStrategy.POOLING)
                // The sink would ask for an hour; the broker allows no more than this.
                .setProperty(
                        ProducerConfig.TRANSACTION_TIMEOUT_CONFIG, Long.toString(TRANSACTION_TIMEOUT.toMillis()))
                .build();
    }
}

package kizuna.peers.flink;

import kizuna.peers.work.TierChange;

import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.DefaultKafkaDatasetIdentifier;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacet;
import org.apache.flink.connector.kafka.lineage.KafkaDatasetFacetProvider;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.kafka.clients.producer.ProducerRecord;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Optional;

/** From a tier change to its record; the producer chooses the partition by the key. */
final class TierChangeSchema implements KafkaRecordSerializationSchema<TierChange>, KafkaDatasetFacetProvider {
    private static final long serialVersionUID = 1;

    private final String topic;

    TierChangeSchema(String topic) {
        this.topic = topic;
    }

    @Override
    public ProducerRecord<byte[], byte[]> serialize(TierChange change, KafkaSinkContext context, Long timestamp) {
        return new ProducerRecord<>(topic, change.customerId().getBytes(StandardCharsets.UTF_8), change.toJson());
    }

    /** The sink's pool of transactions asks for the topics. */
    @Override
    public Optional<KafkaDatasetFacet> getKafkaDatasetFacet() {
        return Optional.of(new DefaultKafkaDatasetFacet(DefaultKafkaDatasetIdentifier.ofTopics(List.of(topic))));
    }
}

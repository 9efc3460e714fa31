package kizuna.peers.flink;

import kizuna.peers.work.Harness;
import kizuna.peers.work.InvalidPurchase;
import kizuna.peers.work.Purchase;
import kizuna.peers.work.PurchaseReader;

import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** From a record to a purchase: one object for all of them, as object reuse allows. */
final class PurchaseSchema implements KafkaRecordDeserializationSchema<Purchase> {
    private static final long serialVersionUID = 1;

    private final String currency;
    private transient PurchaseReader reader;

    PurchaseSchema(String currency) {
        this.currency = currency;
    }

    @Override
    public void open(DeserializationSchema.InitializationContext context) {
        reader = new PurchaseReader(currency);
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Purchase> out) {
        Harness.handling();
        try {
            out.collect(reader.read(record.value()));
        } catch (InvalidPurchase why) {
            Harness.leftOut(record.value(), why);
        }
    }

    @Override
    public TypeInformation<Purchase> getProducedType() {
        return TypeInformation.of(Purchase.class);
    }
}

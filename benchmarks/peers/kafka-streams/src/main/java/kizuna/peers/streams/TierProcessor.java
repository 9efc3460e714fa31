package kizuna.peers.streams;

import kizuna.peers.work.Customer;
import kizuna.peers.work.Harness;
import kizuna.peers.work.InvalidPurchase;
import kizuna.peers.work.Program;
import kizuna.peers.work.Purchase;
import kizuna.peers.work.PurchaseReader;
import kizuna.peers.work.TierChange;

import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

import java.nio.ByteBuffer;

/** From a purchase to the tier change it brings, by way of the customer in the store. */
final class TierProcessor implements Processor<Bytes, byte[], Bytes, byte[]> {
    private final Program program;
    private final PurchaseReader reader;
    private final Customer customer = new Customer();
    private ProcessorContext<Bytes, byte[]> context;
    private KeyValueStore<Bytes, byte[]> customers;

    TierProcessor(Program program) {
        this.program = program;
        reader = new PurchaseReader(program.currency());
    }

    @Override
    public void init(ProcessorContext<Bytes, byte[]> context) {
        this.context = context;
        customers = context.getStateStore(KafkaStreamsPeer.CUSTOMERS);
    }

    @Override
    public void process(Record<Bytes, byte[]> record) {
        Harness.handling();
        Purchase purchase;
        try {
            purchase = reader.read(record.value());
        } catch (InvalidPurchase why) {
            Harness.leftOut(record.value(), why);
            return;
        }
        byte[] state = customers.get(record.key());
        if (state == null) {
            customer.clear();
        } else {
            customer.read(ByteBuffer.wrap(state));
        }
        TierChange change = program.apply(customer, purchase);
        ByteBuffer after = ByteBuffer.allocate(customer.size());
        customer.write(after);
        customers.put(record.key(), after.array());
        if (change != null) {
            context.forward(record.withValue(change.toJson()));
        }
    }
}

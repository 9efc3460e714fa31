package kizuna.peers.flink;

import kizuna.peers.work.Customer;

import org.apache.flink.api.common.typeutils.SimpleTypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.TypeSerializerSnapshot;
import org.apache.flink.api.common.typeutils.base.TypeSerializerSingleton;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;

import java.io.IOException;
import java.nio.ByteBuffer;

/** Customers in checkpoints: their packed bytes, the length first. */
public final class CustomerSerializer extends TypeSerializerSingleton<Customer> {
    static final CustomerSerializer INSTANCE = new CustomerSerializer();

    private static final long serialVersionUID = 1;

    @Override
    public boolean isImmutableType() {
        return false;
    }

    @Override
    public Customer createInstance() {
        return new Customer();
    }

    @Override
    public Customer copy(Customer from) {
        return from.copy();
    }

    @Override
    public Customer copy(Customer from, Customer reuse) {
        return from.copy();
    }

    @Override
    public int getLength() {
        return -1;
    }

    @Override
    public void serialize(Customer customer, DataOutputView target) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(customer.size());
        customer.write(bytes);
        target.writeInt(bytes.capacity());
        target.write(bytes.array());
    }

    @Override
    public Customer deserialize(DataInputView source) throws IOException {
        byte[] bytes = new byte[source.readInt()];
        source.readFully(bytes);
        Customer customer = new Customer();
        customer.read(ByteBuffer.wrap(bytes));
        return customer;
    }

    @Override
    public Customer deserialize(Customer reuse, DataInputView source) throws IOException {
        return deserialize(source);
    }

    @Override
    public void copy(DataInputView source, DataOutputView target) throws IOException {
        int length = source.readInt();
        target.writeInt(length);
        target.write(source, length);
    }

    @Override
    public TypeSerializerSnapshot<Customer> snapshotConfiguration() {
        return new Snapshot();
    }

    /** What a checkpoint says of how it was written. */
    public static final class Snapshot extends SimpleTypeSerializerSnapshot<Customer> {
        public Snapshot() {
            super(() -> INSTANCE);
        }
    }
}

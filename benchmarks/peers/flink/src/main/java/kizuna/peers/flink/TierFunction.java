package kizuna.peers.flink;

import kizuna.peers.work.Customer;
import kizuna.peers.work.Program;
import kizuna.peers.work.Purchase;
import kizuna.peers.work.TierChange;

import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

import java.io.IOException;

/** From a purchase to the tier change it brings, by way of the customer in the state. */
final class TierFunction extends KeyedProcessFunction<String, Purchase, TierChange> {
    private static final long serialVersionUID = 1;

    private final Program program;
    private transient ValueState<Customer> customers;

    TierFunction(Program program) {
        this.program = program;
    }

    @Override
    public void open(OpenContext context) {
        customers = getRuntimeContext()
                .getState(new ValueStateDescriptor<>("customers", CustomerSerializer.INSTANCE));
    }

    @Override
    public void processElement(Purchase purchase, Context context, Collector<TierChange> out) throws IOException {
        Customer customer = customers.value();
        if (customer == null) {
            customer = new Customer();
        }
        TierChange change = program.apply(customer, purchase);
        customers.update(customer);
        if (change != null) {
            out.collect(change);
        }
    }
}

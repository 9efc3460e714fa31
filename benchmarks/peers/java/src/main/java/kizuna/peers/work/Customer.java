package kizuna.peers.work;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * One customer: a head, and for each order in the window its id's hash, its time and its amount, the oldest first.
 *
 * <p>The orders lie in one array of longs. A new one is appended, and those that leave the window are passed over at the
 * front, so that the usual event moves nothing.
 */
public final class Customer {
    private static final int ID = 0;
    private static final int TIME = 1;
    private static final int AMOUNT = 2;
    private static final int ORDER = 3;

    private static final int HEAD_BYTES = Long.BYTES + Long.BYTES + Byte.BYTES;
    private static final long[] NONE = {};

    private long time;
    private long monetary;
    private int tier;
    private long[] orders;
    private int start;
    private int end;

    /** Who has bought nothing yet. */
    public Customer() {
        clear();
    }

    private Customer(Customer other) {
        time = other.time;
        monetary = other.monetary;
        tier = other.tier;
        orders = Arrays.copyOfRange(other.orders, other.start, other.end);
        end = orders.length;
    }

    public Customer copy() {
        return new Customer(this);
    }

    public void clear() {
        time = Long.MIN_VALUE;
        monetary = 0;
        tier = 0;
        orders = NONE;
        start = 0;
        end = 0;
    }

    /** Apply a purchase; whether it counts. One that is known or too late changes nothing. */
    boolean buy(Purchase purchase, long window) {
        long at = purchase.occurredAt;
        long left = Math.max(time, at) - window;
        int first = start;
        long less = 0;
        while (first < end && orders[first + TIME] <= left) {
            less += orders[first + AMOUNT];
            first += ORDER;
        }
        long id = purchase.orderHash;
        if (at <= left || isKnown(id, first)) {
            return false;
        }
        start = first;
        monetary += purchase.amount - less;
        insert(id, at, purchase.amount);
        time = Math.max(time, at);
        return true;
    }

    long time() {
        return time;
    }

    long newest() {
        return orders[end - ORDER + TIME];
    }

    long monetary() {
        return monetary;
    }

    int frequency() {
        return (end - start) / ORDER;
    }

    int tier() {
        return tier;
    }

    void setTier(int tier) {
        this.tier = tier;
    }

    /** How many bytes {@link #write} takes. */
    public int size() {
        return HEAD_BYTES + (end - start) * Long.BYTES;
    }

    /** Packed in the machine's own order of bytes, so that the orders are copied as they lie. */
    public void write(ByteBuffer to) {
        to.order(ByteOrder.nativeOrder());
        to.putLong(time).putLong(monetary).put((byte) tier);
        to.asLongBuffer().put(orders, start, end - start);
        to.position(to.position() + (end - start) * Long.BYTES);
    }

    /** Become the customer that was written; the bytes are read up to their limit. */
    public void read(ByteBuffer from) {
        from.order(ByteOrder.nativeOrder());
        time = from.getLong();
        monetary = from.getLong();
        tier = from.get();
        start = 0;
        end = from.remaining() / Long.BYTES;
        if (orders.length < end + ORDER) {
            orders = new long[roomFor(end)];
        }
        from.asLongBuffer().get(orders, 0, end);
        from.position(from.limit());
    }

    private boolean isKnown(long id, int first) {
        for (int i = first; i < end; i += ORDER) {
            if (orders[i + ID] == id) {
                return true;
            }
        }
        return false;
    }

    private void insert(long id, long at, long amount) {
        if (end == orders.length) {
            makeRoom();
        }
        int place = end;
        while (place > start && orders[place - ORDER + TIME] > at) {
            place -= ORDER;
        }
        System.arraycopy(orders, place, orders, place + ORDER, end - place);
        orders[place + ID] = id;
        orders[place + TIME] = at;
        orders[place + AMOUNT] = amount;
        end += ORDER;
    }

    /** Use what those that left have left free, where it is a good part; else take more. */
    private void makeRoom() {
        int used = end - start;
        long[] from = orders;
        if (start < from.length / 4 || start == 0) {
            orders = new long[roomFor(used)];
        }
        System.arraycopy(from, start, orders, 0, used);
        start = 0;
        end = used;
    }

    private static int roomFor(int used) {
        return used + Math.max(ORDER, used / 4 / ORDER * ORDER);
    }
}

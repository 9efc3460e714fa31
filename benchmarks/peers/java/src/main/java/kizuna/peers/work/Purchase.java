package kizuna.peers.work;

/** A valid purchase. Its amount is in cents, its time in epoch milliseconds. */
public final class Purchase {
    public String customerId;
    public String orderId;
    /** FNV-1a of the order's id, 64 bits: a customer's orders are told apart by it. */
    public long orderHash;
    public long amount;
    public long occurredAt;
}

package kizuna.peers.work;

/** A record that is no valid purchase. The message names the field. */
public final class InvalidPurchase extends Exception {
    private static final long serialVersionUID = 1;

    InvalidPurchase(String field) {
        super(field, null, false, false);
    }
}

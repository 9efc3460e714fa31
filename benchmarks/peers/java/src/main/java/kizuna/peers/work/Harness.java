package kizuna.peers.work;

import java.nio.charset.StandardCharsets;

/** What a peer tells the harness. */
public final class Harness {
    private static boolean started;

    private Harness() {}

    /** To be called before every record; the first one is told of. */
    public static void handling() {
        if (!started) {
            started = true;
            System.out.println("{\"event\":\"started\"}");
            System.out.flush();
        }
    }

    /** A record that is left out. */
    public static void leftOut(byte[] value, InvalidPurchase why) {
        String text = value == null ? "null" : new String(value, StandardCharsets.UTF_8);
        System.err.println("left out: " + why.getMessage() + ": " + text);
    }
}

package kizuna.peers.work;

import java.io.IOException;
import java.nio.file.Path;

/** What the harness tells a peer. */
public record Place(String brokers, String input, String output, String group, Path state, Program program) {

    /** From the variables of this process. */
    public static Place read() throws IOException {
        return new Place(
                variable("BROKERS"),
                variable("INPUT"),
                variable("OUTPUT"),
                variable("GROUP"),
                Path.of(variable("STATE")),
                Program.read(Path.of(variable("PROGRAM"))));
    }

    private static String variable(String name) {
        String value = System.getenv("PEER_" + name);
        if (value == null) {
            throw new IllegalStateException("PEER_" + name + " is not set: the harness starts this program");
        }
        return value;
    }
}

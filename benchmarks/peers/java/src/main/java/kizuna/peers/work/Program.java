package kizuna.peers.work;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

import java.io.IOException;
import java.io.Serializable;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The loyalty program: the window in milliseconds, the currency, and the tiers, the lowest first. */
public record Program(long window, String currency, List<Tier> tiers) implements Serializable {

    /** What a tier takes at least; money in cents. */
    public record Tier(String name, long minMonetary, int minFrequency) implements Serializable {}

    /** The program as the harness writes it. */
    static Program read(Path file) throws IOException {
        JsonNode program = new ObjectMapper().readTree(file.toFile());
        List<Tier> tiers = new ArrayList<>();
        for (JsonNode tier : program.required("tiers")) {
            tiers.add(new Tier(
                    tier.required("name").asText(),
                    tier.required("min_monetary").asLong(),
                    tier.required("min_frequency").asInt()));
        }
        return new Program(program.required("window_ms").asLong(), program.required("currency").asText(), List.copyOf(tiers));
    }

    /** Apply a purchase to its customer; the tier change that this brings, or null. */
    public TierChange apply(Customer customer, Purchase purchase) {
        if (!customer.buy(purchase, window)) {
            return null;
        }
        int before = customer.tier();
        int tier = tierOf(customer.monetary(), customer.frequency());
        if (tier == before) {
            return null;
        }
        customer.setTier(tier);
        return new TierChange(
                purchase.customerId,
                purchase.orderId,
                tiers.get(before).name,
                tiers.get(tier).name,
                customer.time(),
                customer.newest(),
                customer.frequency(),
                customer.monetary());
    }

    /** The highest tier both of whose thresholds hold, by its place. */
    private int tierOf(long monetary, int frequency) {
        int tier = tiers.size() - 1;
        while (tier > 0 && (monetary < tiers.get(tier).minMonetary || frequency < tiers.get(tier).minFrequency)) {
            tier--;
        }
        return tier;
    }
}

package kizuna.peers.work;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;

/** A customer's new tier: what is published. Times are epoch milliseconds, money is cents. */
public record TierChange(
        String customerId,
        String orderId,
        String previousTier,
        String tier,
        long effectiveAt,
        long newest,
        int frequency,
        long monetary) {

    private static final JsonFactory JSON = new JsonFactory();

    public byte[] toJson() {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(256);
        try (JsonGenerator json = JSON.createGenerator(bytes)) {
            json.writeStartObject();
            json.writeStringField("customer_id", customerId);
            json.writeStringField("order_id", orderId);
            json.writeStringField("previous_tier", previousTier);
            json.writeStringField("tier", tier);
            json.writeStringField("effective_at", Times.format(effectiveAt));
            json.writeObjectFieldStart("rfm");
            json.writeNumberField("recency_seconds", (effectiveAt - newest) / 1000);
            json.writeNumberField("frequency", frequency);
            json.writeStringField("monetary", Money.format(monetary));
            json.writeEndObject();
            json.writeEndObject();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return bytes.toByteArray();
    }
}

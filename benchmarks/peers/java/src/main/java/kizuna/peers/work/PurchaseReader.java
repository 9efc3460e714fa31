package kizuna.peers.work;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;

import java.io.IOException;

/**
 * Decodes and validates records by Jackson's streaming parser. One thread makes one reader and uses it for every record,
 * as Jackson's advice on performance has it: the factory keeps buffers and field names.
 */
public final class PurchaseReader {
    private static final int MAX_ID = 128;

    private final JsonFactory json = new JsonFactory();
    private final String currency;
    private final Purchase purchase = new Purchase();

    // What has been seen of the record at hand.
    private boolean event;
    private boolean type;
    private boolean paid;

    public PurchaseReader(String currency) {
        this.currency = currency;
    }

    /** The purchase that a record's value says; the next call overwrites it. */
    public Purchase read(byte[] value) throws InvalidPurchase {
        require(value != null, "null");
        purchase.customerId = null;
        purchase.orderId = null;
        purchase.amount = -1;
        purchase.occurredAt = Long.MIN_VALUE;
        event = false;
        type = false;
        paid = false;
        try (JsonParser parser = json.createParser(value)) {
            readObject(parser);
        } catch (JsonProcessingException error) {
            throw new InvalidPurchase("not JSON");
        } catch (IOException error) {
            throw new InvalidPurchase(error.getMessage());
        }
        require(event, "event_id");
        require(type, "type");
        require(paid, "currency");
        require(purchase.customerId != null, "customer_id");
        require(purchase.orderId != null, "order_id");
        require(purchase.amount >= 0, "amount");
        require(purchase.occurredAt != Long.MIN_VALUE, "occurred_at");
        return purchase;
    }

    private void readObject(JsonParser parser) throws IOException, InvalidPurchase {
        require(parser.nextToken() == JsonToken.START_OBJECT, "not an object");
        for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
            JsonToken token = parser.nextToken();
            switch (name) {
                case "event_id" -> {
                    checkId(parser, token, name);
                    event = true;
                }
                case "customer_id" -> {
                    checkId(parser, token, name);
                    purchase.customerId = parser.getText();
                }
                case "order_id" -> {
                    checkId(parser, token, name);
                    purchase.orderHash =
                            hash(parser.getTextCharacters(), parser.getTextOffset(), parser.getTextLength());
                    purchase.orderId = parser.getText();
                }
                case "type" -> {
                    require(token == JsonToken.VALUE_STRING && is(parser, "purchase"), name);
                    type = true;
                }
                case "currency" -> {
                    require(token == JsonToken.VALUE_STRING && is(parser, currency), name);
                    paid = true;
                }
                case "occurred_at" -> {
                    require(token == JsonToken.VALUE_STRING, name);
                    purchase.occurredAt =
                            Times.parse(parser.getTextCharacters(), parser.getTextOffset(), parser.getTextLength());
                }
                case "amount" -> {
                    require(token == JsonToken.VALUE_STRING || token.isNumeric(), name);
                    purchase.amount =
                            Money.parse(parser.getTextCharacters(), parser.getTextOffset(), parser.getTextLength());
                }
                case "channel", "store_id", "campaign_id" ->
                        require(token == JsonToken.VALUE_STRING || token == JsonToken.VALUE_NULL, name);
                default -> parser.skipChildren();
            }
        }
        require(parser.currentToken() == JsonToken.END_OBJECT && parser.nextToken() == null, "not one object");
    }

    private static void checkId(JsonParser parser, JsonToken token, String name) throws IOException, InvalidPurchase {
        require(token == JsonToken.VALUE_STRING, name);
        int length = parser.getTextLength();
        if (length > MAX_ID) {
            length = Character.codePointCount(parser.getTextCharacters(), parser.getTextOffset(), length);
        }
        require(length >= 1 && length <= MAX_ID, name);
    }

    private static boolean is(JsonParser parser, String expected) throws IOException {
        int length = parser.getTextLength();
        if (length != expected.length()) {
            return false;
        }
        char[] text = parser.getTextCharacters();
        int start = parser.getTextOffset();
        for (int i = 0; i < length; i++) {
            if (text[start + i] != expected.charAt(i)) {
                return false;
            }
        }
        return true;
    }

    private static long hash(char[] text, int start, int length) {
        long hash = 0xcbf29ce484222325L;
        for (int i = start; i < start + length; i++) {
            hash = (hash ^ text[i]) * 0x100000001b3L;
        }
        return hash;
    }

    private static void require(boolean holds, String field) throws InvalidPurchase {
        if (!holds) {
            throw new InvalidPurchase(field);
        }
    }
}

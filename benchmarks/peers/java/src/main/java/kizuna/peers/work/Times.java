package kizuna.peers.work;

import java.time.Instant;
import java.time.temporal.ChronoUnit;

/** RFC 3339 to epoch milliseconds and back. */
final class Times {
    private static final long DAY = 86_400_000L;

    private Times() {}

    /** Epoch milliseconds of a time with an offset; what is finer is cut. */
    static long parse(char[] text, int start, int length) throws InvalidPurchase {
        int end = start + length;
        if (length < 20 || text[start + 4] != '-' || text[start + 7] != '-' || text[start + 13] != ':'
                || text[start + 16] != ':' || (text[start + 10] != 'T' && text[start + 10] != 't')) {
            throw new InvalidPurchase("occurred_at");
        }
        int year = digits(text, start, 4);
        int month = within(digits(text, start + 5, 2), 1, 12);
        int day = within(digits(text, start + 8, 2), 1, daysOf(year, month));
        long seconds = within(digits(text, start + 11, 2), 0, 23) * 3600L
                + within(digits(text, start + 14, 2), 0, 59) * 60L
                + within(digits(text, start + 17, 2), 0, 59);
        int at = start + 19;
        int millis = 0;
        if (text[at] == '.') {
            int fraction = ++at;
            for (int scale = 100; at < end && text[at] >= '0' && text[at] <= '9'; at++, scale /= 10) {
                millis += (text[at] - '0') * scale;
            }
            if (at == fraction) {
                throw new InvalidPurchase("occurred_at");
            }
        }
        return daysFrom1970(year, month, day) * DAY + (seconds - offset(text, at, end)) * 1000L + millis;
    }

    /** As the contract writes a time: in UTC, with three decimals. */
    static String format(long millis) {
        String text = Instant.ofEpochMilli(millis).truncatedTo(ChronoUnit.MILLIS).toString();
        return text.length() == 20 ? text.substring(0, 19) + ".000Z" : text;
    }

    /** Seconds east of Greenwich. */
    private static int offset(char[] text, int at, int end) throws InvalidPurchase {
        if (end - at == 1 && (text[at] == 'Z' || text[at] == 'z')) {
            return 0;
        }
        if (end - at != 6 || text[at + 3] != ':' || (text[at] != '+' && text[at] != '-')) {
            throw new InvalidPurchase("occurred_at");
        }
        int seconds = within(digits(text, at + 1, 2), 0, 23) * 3600 + within(digits(text, at + 4, 2), 0, 59) * 60;
        return text[at] == '-' ? -seconds : seconds;
    }

    private static int digits(char[] text, int at, int count) throws InvalidPurchase {
        int number = 0;
        for (int i = at; i < at + count; i++) {
            int digit = text[i] - '0';
            if (digit < 0 || digit > 9) {
                throw new InvalidPurchase("occurred_at");
            }
            number = number * 10 + digit;
        }
        return number;
    }

    private static int within(int number, int least, int most) throws InvalidPurchase {
        if (number < least || number > most) {
            throw new InvalidPurchase("occurred_at");
        }
        return number;
    }

    private static int daysOf(int year, int month) {
        return switch (month) {
            case 2 -> (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) ? 29 : 28;
            case 4, 6, 9, 11 -> 30;
            default -> 31;
        };
    }

    /** Days of the proleptic Gregorian calendar, counted from March on so that the leap day comes last. */
    private static long daysFrom1970(int year, int month, int day) {
        int shifted = month > 2 ? year : year - 1;
        int dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
        return 365L * shifted + shifted / 4 - shifted / 100 + shifted / 400 + dayOfYear - 719_468;
    }
}

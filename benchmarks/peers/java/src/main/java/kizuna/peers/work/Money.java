package kizuna.peers.work;

/** Amounts as text and as whole cents, never as a binary float. */
final class Money {
    private static final int MAX_DIGITS = 13;

    private Money() {}

    /** Cents of {@code (0|[1-9][0-9]{0,12})(\.[0-9]{1,2})?}. */
    static long parse(char[] text, int start, int length) throws InvalidPurchase {
        int end = start + length;
        long cents = 0;
        int at = start;
        for (; at < end && isDigit(text[at]); at++) {
            require(at - start < MAX_DIGITS);
            cents = cents * 10 + (text[at] - '0');
        }
        require(at > start && (text[start] != '0' || at == start + 1));
        cents *= 100;
        if (at == end) {
            return cents;
        }
        int decimals = end - at - 1;
        require(text[at] == '.' && (decimals == 1 || decimals == 2) && isDigit(text[at + 1]));
        cents += (text[at + 1] - '0') * 10L;
        if (decimals == 2) {
            require(isDigit(text[at + 2]));
            cents += text[at + 2] - '0';
        }
        return cents;
    }

    /** With two decimals. */
    static String format(long cents) {
        long part = cents % 100;
        return cents / 100 + (part < 10 ? ".0" : ".") + part;
    }

    private static boolean isDigit(char character) {
        return character >= '0' && character <= '9';
    }

    private static void require(boolean holds) throws InvalidPurchase {
        if (!holds) {
            throw new InvalidPurchase("amount");
        }
    }
}

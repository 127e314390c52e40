/* What libmodbus's own conversions make of registers: a line for each, "type order registers value", where registers
 * are the bytes on the wire and value the bits of the result, both in hexadecimal.
 *
 * libmodbus names the float orders by itself. Its integer macros know only ABCD: for the other orders they are given
 * the registers as a device of that order would have sent them in ABCD. */
#include <modbus/modbus.h>
#include <stdio.h>
#include <string.h>

enum { WORDS = 4, ORDERS = 4 };

static const char *const NAMES[ORDERS] = {"ABCD", "DCBA", "BADC", "CDAB"};
static float (*const FLOATS[ORDERS])(const uint16_t *) = {
    modbus_get_float_abcd, modbus_get_float_dcba, modbus_get_float_badc, modbus_get_float_cdab,
};

static void print(const char *type, int order, const uint16_t *words, int count, uint64_t value, int digits) {
    printf("%s %s ", type, NAMES[order]);
    for (int i = 0; i < count; i++) printf("%04x", words[i]);
    printf(" %0*llx\n", digits, (unsigned long long)value);
}

/* The first `count` registers as ABCD. */
static void in_order(const uint16_t *words, int count, int order, uint16_t *found) {
    int reversed = order == 1 || order == 3, swapped = order == 1 || order == 2;
    for (int i = 0; i < count; i++) {
        uint16_t word = words[reversed ? count - 1 - i : i];
        found[i] = swapped ? (uint16_t)(MODBUS_GET_LOW_BYTE(word) << 8 | MODBUS_GET_HIGH_BYTE(word)) : word;
    }
}

static void show(const uint16_t *words) {
    uint16_t plain[WORDS];
    for (int order = 0; order < ORDERS; order++) {
        float real = FLOATS[order](words);
        uint32_t bits;
        memcpy(&bits, &real, sizeof bits);
        print("float32", order, words, 2, bits, 8);
        in_order(words, 1, order, plain);
        print("uint16", order, words, 1, plain[0], 4);
        in_order(words, 2, order, plain);
        print("int32", order, words, 2, (uint32_t)MODBUS_GET_INT32_FROM_INT16(plain, 0), 8);
        in_order(words, 4, order, plain);
        print("int64", order, words, 4, (uint64_t)MODBUS_GET_INT64_FROM_INT16(plain, 0), 16);
    }
    print("high", 0, words, 1, MODBUS_GET_HIGH_BYTE(words[0]), 2);
    print("low", 0, words, 1, MODBUS_GET_LOW_BYTE(words[0]), 2);
}

int main(void) {
    static const uint16_t known[][WORDS] = {
        {0x42F6, 0xE979, 0x0001, 0x8000}, {0x0102, 0x0304, 0x0506, 0x0708}, {0xFFFE, 0x1DC0, 0x7FFF, 0xFF80},
        {0x0080, 0x3F00, 0x80FF, 0x017F}, {0x0000, 0x0000, 0x0000, 0x0001}, {0x8000, 0x0000, 0x0000, 0x0000},
    };
    printf("version %d.%d.%d -\n", libmodbus_version_major, libmodbus_version_minor, libmodbus_version_micro);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) show(known[i]);
    uint32_t state = 2463534242u; /* xorshift32: the same words in every run */
    for (int round = 0; round < 500; round++) {
        uint16_t words[WORDS];
        for (int i = 0; i < WORDS; i++) {
            state ^= state << 13, state ^= state >> 17, state ^= state << 5;
            words[i] = (uint16_t)(state >> 8);
        }
        show(words);
    }
    /* Coils: eight of a byte, the lowest first. */
    for (int byte = 0; byte < 256; byte += 5) {
        uint8_t bits[8];
        modbus_set_bits_from_byte(bits, 0, (uint8_t)byte);
        printf("coils - %02x ", byte);
        for (int i = 0; i < 8; i++) printf("%d", bits[i]);
        printf("\n");
    }
    return 0;
}

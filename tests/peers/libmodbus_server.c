/* A Modbus device made with libmodbus. Prints "ready PORT" or "ready DEVICE" once it listens.
 *
 *     libmodbus_server PORT     Modbus TCP
 *     libmodbus_server DEVICE   RTU, unit 1, at 115200 baud, 8N1
 *
 * The values are listed in servers.py. They are written as registers, not with modbus_set_float_*: libmodbus before
 * 3.1.7 swaps the bytes of every register there on little-endian machines, so that the names say something else. */
#include <errno.h>
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

enum { ITEMS = 200, COUNTER = 8 };

static const uint16_t HOLDING[] = {
    0x449A, 0x5225,                 /* 0: 1234.567 as ABCD */
    0x2552, 0x9A44,                 /* 2: DCBA */
    0x9A44, 0x2552,                 /* 4: BADC */
    0x5225, 0x449A,                 /* 6: CDAB */
    0,                              /* 8: counts the answered requests */
    0x000A,                         /* 9: bits 1 and 3 */
    0x0020, 0x0000, 0x0000, 0x0001, /* 10: 2^53 + 1 as uint64, ABCD */
    0xFFFE, 0x1DC0,                 /* 14: -123456 as int32, ABCD */
    0xFFFE,                         /* 16: -2 as int16 */
    0x7072, 0x6573, 0x732D, 0x3700, /* 17: "press-7" */
};

static void fill(modbus_mapping_t *map) {
    memcpy(map->tab_registers, HOLDING, sizeof HOLDING);
    for (int i = 0; i < ITEMS; i++) {
        map->tab_bits[i] = i % 3 == 0;
        map->tab_input_bits[i] = i % 3 != 0;
        map->tab_input_registers[i] = (uint16_t)(1000 + i);
    }
}

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

static void serve_rtu(const char *device) {
    modbus_t *line = modbus_new_rtu(device, 115200, 'N', 8, 1);
    modbus_mapping_t *map = modbus_mapping_new(ITEMS, ITEMS, ITEMS, ITEMS);
    if (line == NULL || map == NULL) fail("no memory");
    fill(map);
    modbus_set_slave(line, 1);
    if (modbus_connect(line) < 0) fail("cannot open");
    printf("ready %s\n", device);
    fflush(stdout);
    for (;;) {
        uint8_t request[MODBUS_RTU_MAX_ADU_LENGTH];
        int length = modbus_receive(line, request);
        if (length > 0) {
            map->tab_registers[COUNTER]++;
            modbus_reply(line, request, length, map);
        } else if (length < 0 && errno != EMBBADCRC) {
            fail("cannot receive");
        }
    }
}

int main(int count, char **words) {
    if (count != 2) {
        fprintf(stderr, "usage: libmodbus_server PORT or DEVICE\n");
        return 2;
    }
    if (words[1][0] == '/') serve_rtu(words[1]);
    int port = atoi(words[1]);
    modbus_t *line = modbus_new_tcp("127.0.0.1", port);
    modbus_mapping_t *map = modbus_mapping_new(ITEMS, ITEMS, ITEMS, ITEMS);
    if (line == NULL || map == NULL) fail("no memory");
    fill(map);
    int listener = modbus_tcp_listen(line, 16);
    if (listener < 0) fail("cannot listen");
    printf("ready %d\n", port);
    fflush(stdout);

    fd_set open;
    FD_ZERO(&open);
    FD_SET(listener, &open);
    int highest = listener;
    for (;;) {
        fd_set waiting = open;
        if (select(highest + 1, &waiting, NULL, NULL, NULL) < 0) fail("select");
        for (int each = 0; each <= highest; each++) {
            if (!FD_ISSET(each, &waiting)) continue;
            if (each == listener) {
                int client = modbus_tcp_accept(line, &listener);
                if (client < 0) continue;
                if (client >= FD_SETSIZE) {
                    close(client);
                    continue;
                }
                FD_SET(client, &open);
                if (client > highest) highest = client;
                continue;
            }
            uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(line, each);
            int length = modbus_receive(line, request);
            if (length > 0) {
                map->tab_registers[COUNTER]++;
                modbus_reply(line, request, length, map);
            } else if (length < 0) {
                close(each);
                FD_CLR(each, &open);
            }
        }
    }
}

/* Modbus TCP devices that answer as fast as one core can: `modbus_load [COUNT]`. Prints "ready PORT ..." once it listens,
 * a port for each device.
 *
 * It is there to cost nothing next to what it measures: reads (functions 1 to 4) of any unit, any address and any count
 * that the protocol allows are answered from a ring of images which are made at the start. An image holds plant-like
 * float32 values (ABCD, 0 to 400 with one decimal, each a random walk of its own), and every response is the next image,
 * so that values move as they would and a block compresses as it would. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IMAGES = 512, FLOATS = 512, SPAN = 4 * FLOATS, HEADER = 7, MOST = 260, EVENTS = 256, LINES = 65536, DEVICES = 1024 };

/* Its beginning is there again at its end, so that a response may begin at any register. */
static uint8_t images[IMAGES][SPAN + MOST];

typedef struct {
    int socket;
    unsigned turn;
    size_t held;
    uint8_t received[16 * MOST];
} Line;

static Line *lines[LINES];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint32_t drawn(void) {
    static uint64_t state = 0x9E3779B97F4A7C15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static void fill(void) {
    for (int at = 0; at < FLOATS; at++) {
        int tenths = 500 + (int)(drawn() % 3000);
        for (int image = 0; image < IMAGES; image++) {
            /* The second half goes back the same way: the ring has no jump. */
            if (image >= IMAGES / 2) {
                memcpy(images[image] + 4 * at, images[IMAGES - 1 - image] + 4 * at, 4);
                continue;
            }
            float value = (float)tenths / 10.0f;
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            bits = htonl(bits);
            memcpy(images[image] + 4 * at, &bits, sizeof bits);
            tenths += (int)(drawn() % 7) - 3;
            if (tenths < 0) tenths = 0;
            if (tenths > 4000) tenths = 4000;
        }
    }
    for (int image = 0; image < IMAGES; image++) {
        memcpy(images[image] + SPAN, images[image], MOST);
    }
}

/* Writes the answer to the frame at `asked` (its PDU has `size` bytes), and returns its length. */
static size_t answer(Line *line, const uint8_t *asked, size_t size, uint8_t *out) {
    const uint8_t *pdu = asked + HEADER;
    uint8_t code = pdu[0];
    unsigned first = 0, count = 0, most = code <= 2 ? 2000 : 125, refused = 0;
    if (code < 1 || code > 4) {
        refused = 1;
    } else if (size != 5) {
        refused = 3;
    } else {
        first = (unsigned)pdu[1] << 8 | pdu[2];
        count = (unsigned)pdu[3] << 8 | pdu[4];
        if (count < 1 || count > most) refused = 3;
        else if (first + count > 65536) refused = 2;
    }
    memcpy(out, asked, HEADER);
    size_t length;
    if (refused) {
        out[HEADER] = code | 0x80;
        out[HEADER + 1] = (uint8_t)refused;
        length = 2;
    } else {
        size_t bytes = code <= 2 ? (count + 7) / 8 : 2 * count;
        out[HEADER] = code;
        out[HEADER + 1] = (uint8_t)bytes;
        memcpy(out + HEADER + 2, images[line->turn] + (2 * first) % SPAN, bytes);
        if (code <= 2 && count % 8) out[HEADER + 1 + bytes] &= (uint8_t)((1 << count % 8) - 1);
        line->turn = (line->turn + 1) % IMAGES;
        length = 2 + bytes;
    }
    out[4] = (uint8_t)((length + 1) >> 8);
    out[5] = (uint8_t)(length + 1);
    return HEADER + length;
}

static void drop(Line *line) {
    lines[line->socket] = NULL;
    close(line->socket);
    free(line);
}

static void serve(Line *line) {
    static uint8_t out[96 * 1024]; /* more than all answers to what one line holds */
    ssize_t got = recv(line->socket, line->received + line->held, sizeof line->received - line->held, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        drop(line);
        return;
    }
    line->held += (size_t)got;
    size_t at = 0, filled = 0;
    while (line->held - at >= HEADER) {
        const uint8_t *frame = line->received + at;
        size_t rest = (size_t)frame[4] << 8 | frame[5];
        if (frame[2] || frame[3] || rest < 2 || rest > MOST - 6) {
            drop(line);
            return;
        }
        if (line->held - at < 6 + rest) break;
        if (filled + MOST > sizeof out) break;
        filled += answer(line, frame, rest - 1, out + filled);
        at += 6 + rest;
    }
    line->held -= at;
    memmove(line->received, line->received + at, line->held);
    /* A client that does not read its answers is not waited for. */
    if (filled && send(line->socket, out, filled, MSG_NOSIGNAL) != (ssize_t)filled) drop(line);
}

/* A listening socket at a free port, which is printed. */
static int listening(void) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0) fail("socket");
    if (bind(listener, (struct sockaddr *)&place, size) < 0 || listen(listener, 1024) < 0) fail("listen");
    if (getsockname(listener, (struct sockaddr *)&place, &size) < 0) fail("getsockname");
    printf(" %d", ntohs(place.sin_port));
    return listener;
}

int main(int count, char **words) {
    int devices = count > 1 ? atoi(words[1]) : 1, on = 1, poll = epoll_create1(0);
    struct rlimit files;
    if (devices < 1 || devices > DEVICES || poll < 0) fail("modbus_load [COUNT]");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    fill();
    struct epoll_event wanted = {.events = EPOLLIN}, events[EVENTS];
    static uint8_t listens[LINES];
    printf("ready");
    for (int each = 0; each < devices; each++) {
        int last = listening();
        wanted.data.fd = last;
        if (last >= LINES || epoll_ctl(poll, EPOLL_CTL_ADD, last, &wanted) < 0) fail("epoll_ctl");
        listens[last] = 1;
    }
    printf("\n");
    fflush(stdout);

    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int each = 0; each < ready; each++) {
            int at = events[each].data.fd;
            if (!listens[at]) {
                if (lines[at] != NULL) serve(lines[at]);
                continue;
            }
            int client = accept4(at, NULL, NULL, SOCK_NONBLOCK);
            if (client < 0) continue;
            Line *line = client < LINES ? calloc(1, sizeof *line) : NULL;
            if (line == NULL) {
                close(client);
                continue;
            }
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            line->socket = client;
            line->turn = drawn() % IMAGES;
            lines[client] = line;
            wanted = (struct epoll_event){.events = EPOLLIN, .data.fd = client};
            if (epoll_ctl(poll, EPOLL_CTL_ADD, client, &wanted) < 0) drop(line);
        }
    }
}

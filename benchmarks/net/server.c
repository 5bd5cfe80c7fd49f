/* The limit: an echo server in C. One thread, edge-triggered epoll, one registration per connection, no logic at all.
 * Prints its port, then serves until it is killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024 };

/* What has been read and not yet written back is buffer[start:end]. */
struct connection { int fd; size_t start, end; char buffer[BUFFER_BYTES]; };

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 1024)) die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size)) die("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_all(int poller, int listener) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = malloc(sizeof *c);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        if (!c) die("malloc");
        c->fd = fd;
        c->start = c->end = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    }
}

/* 1: all written; 0: the socket is full; -1: the connection is lost */
static int flush(struct connection *c) {
    while (c->start < c->end) {
        ssize_t n = send(c->fd, c->buffer + c->start, c->end - c->start, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        c->start += n;
    }
    c->start = c->end = 0;
    return 1;
}

/* Echo until a side would block. A short read means the socket is empty, unless the peer has hung up as well. */
static int echo(struct connection *c, int hung_up) {
    for (;;) {
        int flushed = flush(c);
        if (flushed <= 0) return flushed;
        ssize_t n = recv(c->fd, c->buffer, sizeof c->buffer, 0);
        if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
        c->end = n;
        if (n < BUFFER_BYTES && !hung_up) return flush(c);
    }
}

int main(void) {
    struct epoll_event events[256], listening = {.events = EPOLLIN};
    int poller = epoll_create1(0), listener = listen_anywhere();
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &listening)) die("epoll_ctl"); /* data.ptr is NULL: the listener */
    for (;;) {
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) { accept_all(poller, listener); continue; }
            if (echo(c, events[i].events & EPOLLRDHUP) < 0) { close(c->fd); free(c); }
        }
    }
}

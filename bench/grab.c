// The measure of what a machine's sockets allow: connect, read the first bytes, close. Nothing is looked at.
//
//     grab banner|http PORT ADDRESSES TOTAL INFLIGHT rst|fin        prints connections that brought bytes, seconds
//
// Connection n goes to address n modulo ADDRESSES of a farm (farm.c); http sends a request first. Connections are ended
// with RST, as `probemill scan --reset` does and which is cheapest, or with FIN, as scans do by default.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, GIVE_UP_MS = 10000 };

static const char REQUEST[] = "GET / HTTP/1.0\r\n\r\n";
static int epoll, port, asks, resets;
static long addresses, total, begun, ended, answered;

static void begin(void) {
  if (begun == total) return;
  long number = begun++ % addresses;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct linger now = {1, 0};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  to.sin_addr.s_addr = htonl(0x7f010000u + (uint32_t)((number / 250) << 8) + (uint32_t)(number % 250) + 1);
  if (resets) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  if (fd < 0 || (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS)) {
    perror("grab");
    exit(1);
  }
  struct epoll_event event = {.events = asks ? EPOLLOUT : EPOLLIN, .data.fd = fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void attend(int fd, uint32_t events) {
  static char heard[65536];
  if (asks && events == EPOLLOUT) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    send(fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL);
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
    return;
  }
  ssize_t size = recv(fd, heard, sizeof heard, 0);
  if (size < 0 && errno == EAGAIN) return;
  answered += size > 0;
  close(fd);
  ended++;
  begin();
}

int main(int count, char **arguments) {
  if (count != 7) {
    fprintf(stderr, "usage: grab banner|http PORT ADDRESSES TOTAL INFLIGHT rst|fin\n");
    return 2;
  }
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  asks = !strcmp(arguments[1], "http");
  port = atoi(arguments[2]);
  addresses = atol(arguments[3]);
  total = atol(arguments[4]);
  resets = !strcmp(arguments[6], "rst");
  epoll = epoll_create1(0);
  struct timespec from, to;
  clock_gettime(CLOCK_MONOTONIC, &from);
  for (long i = atol(arguments[5]); i > 0; i--) begin();
  while (ended < total) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, GIVE_UP_MS);
    if (ready <= 0) break;
    for (int i = 0; i < ready; i++) attend(events[i].data.fd, events[i].events);
  }
  clock_gettime(CLOCK_MONOTONIC, &to);
  printf("%ld %.3f\n", answered, (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9);
  return answered != total;
}

// A loopback farm of services, as fast as one thread makes it: every address of 127.0.0.0/8 answers on one port.
//
//     farm MODE [PORT]        prints its port, ends when its standard input does
//
//   banner    greets at once                        tarpit    accepts and says nothing
//   http      silent until asked, then HTTP         endless   sends without end
//   reset     resets as soon as it hears anything   drip      sends a byte every 100 ms
//                                                   deaf      never reads, with the smallest window there is
//
// The sockets are bound to the loopback device: nobody else can reach them. There are several, so that their accept
// queues hold as many connections as a scan opens at once.

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

enum { LISTENERS = 16, EVENTS = 512, DRIP_MS = 100, MOST_OPEN = 1 << 20 };
enum kind { IS_LISTENER = 1, IS_CONNECTION, IS_STDIN };
enum mode { BANNER, HTTP, RESET, TARPIT, ENDLESS, DRIP, DEAF, MODES };

static const char *const NAMES[MODES] = {"banner", "http", "reset", "tarpit", "endless", "drip", "deaf"};
static const char GREETING[] = "SSH-2.0-OpenSSH_9.2p1\r\n";
static const char PAGE[] =
    "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\nContent-Length: 3\r\n"
    "Connection: close\r\n\r\nhi\n";
static const char NOISE[65536] = {'.'};

static int epoll;
static enum mode mode;
static int dripping[MOST_OPEN], drips;  // open connections of mode drip

static void watch(int fd, enum kind kind, uint32_t events) {
  struct epoll_event event = {.events = events, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1, smallest = 1;
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
  socklen_t size = sizeof any;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
  if (mode == DEAF) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &smallest, sizeof smallest);
  if (bind(fd, (void *)&any, sizeof any) || listen(fd, 4096)) {
    perror("farm");
    exit(1);
  }
  getsockname(fd, (void *)&any, &size);
  watch(fd, IS_LISTENER, EPOLLIN);
  return ntohs(any.sin_port);
}

static void welcome(int listener) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    if (mode == BANNER) send(fd, GREETING, sizeof GREETING - 1, MSG_NOSIGNAL);
    if (mode == DRIP && drips < MOST_OPEN) dripping[drips++] = fd;
    uint32_t events = mode == DEAF ? EPOLLRDHUP | EPOLLET : EPOLLIN | EPOLLRDHUP;
    watch(fd, IS_CONNECTION, events | (mode == ENDLESS ? EPOLLOUT : 0));
  }
}

static void leave(int fd) {
  for (int i = 0; mode == DRIP && i < drips; i++)
    if (dripping[i] == fd) dripping[i--] = dripping[--drips];
  close(fd);
}

static void converse(int fd, uint32_t events) {
  static char heard[65536];
  if (mode == DEAF) {
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) leave(fd);
    return;
  }
  if (mode == ENDLESS && events & EPOLLOUT && send(fd, NOISE, sizeof NOISE, MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
    leave(fd);
    return;
  }
  ssize_t size = recv(fd, heard, sizeof heard, 0);
  if (size == 0 || (size < 0 && errno != EAGAIN)) {
    leave(fd);
  } else if (size > 0 && mode == HTTP) {
    send(fd, PAGE, sizeof PAGE - 1, MSG_NOSIGNAL);
    leave(fd);
  } else if (size > 0 && mode == RESET) {
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    leave(fd);
  }
}

static long milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int count, char **arguments) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  for (mode = 0; mode < MODES && (count < 2 || strcmp(arguments[1], NAMES[mode])); mode++) {
  }
  if (mode == MODES) {
    fprintf(stderr, "usage: farm banner|http|reset|tarpit|endless|drip|deaf [PORT]\n");
    return 2;
  }
  epoll = epoll_create1(0);
  int port = listen_on(count > 2 ? atoi(arguments[2]) : 0);
  for (int i = 1; i < LISTENERS; i++) listen_on(port);
  watch(0, IS_STDIN, EPOLLIN);
  printf("%d\n", port);
  fflush(stdout);
  long next_drip = milliseconds() + DRIP_MS;
  for (;;) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, mode == DRIP ? 10 : -1);
    for (int i = 0; i < ready; i++) {
      int fd = (int)(uint32_t)events[i].data.u64;
      enum kind kind = events[i].data.u64 >> 32;
      if (kind == IS_STDIN) return 0;
      if (kind == IS_LISTENER) welcome(fd);
      else converse(fd, events[i].events);
    }
    if (mode == DRIP && milliseconds() >= next_drip) {
      for (int i = 0; i < drips; i++) send(dripping[i], ".", 1, MSG_NOSIGNAL);
      next_drip += DRIP_MS;
    }
  }
}

/*
 * The floor: what the kernel takes to hand datagrams over, and nothing else.
 * recv PATH: binds a datagram socket, reads until SIGTERM and an empty queue,
 * prints how many there were.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void end(int signal) { (void)signal; ended = 1; }

int main(int argc, char **argv)
{
	static char buf[262145];
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct sigaction act = { .sa_handler = end };
	long got = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	if (argc != 2 || strlen(argv[1]) >= sizeof addr.sun_path)
		return 2;
	strcpy(addr.sun_path, argv[1]);
	sigaction(SIGTERM, &act, NULL);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
		perror(argv[1]);
		return 1;
	}
	for (;;) {
		ssize_t n = recv(fd, buf, sizeof buf, ended ? MSG_DONTWAIT : 0);
		if (n >= 0)
			got++;
		else if (errno != EINTR)
			break;
	}
	printf("%ld\n", got);
	return 0;
}

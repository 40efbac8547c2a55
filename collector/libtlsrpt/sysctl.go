package libtlsrpt

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	// wantQueue is what systemd sets where it runs. The kernel's default is 10,
	// and a new network namespace, so every container, starts at that.
	wantQueue = 512

	queueLengthFile = "/proc/sys/net/unix/max_dgram_qlen"
)

// checkQueue warns of a queue that is too short for a burst of mail. Its length
// is fixed when the socket is made, so a change needs a new socket.
func (s *Source) checkQueue(file string) {
	n, err := queueLength(file)
	if err != nil || n >= wantQueue {
		return
	}
	s.logger.Warn("the queue of the socket is short, datagrams will be lost in bursts: "+
		"set it, then start anew what made the socket",
		"source", s.name, "mend", fmt.Sprintf("sysctl -w net.unix.max_dgram_qlen=%d", wantQueue), "datagrams", n)
}

// queueLength is the number of datagrams that a socket made now can queue.
func queueLength(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err // other systems have other limits
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, errors.New("libtlsrpt: not a number in " + file)
	}
	return n, nil
}

package eventgen

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Sender sends datagrams to the socket of a collector.
type Sender struct {
	// Path is where the collector listens.
	Path string

	// Fresh sends each datagram from a socket of its own, as smtp(8) does.
	Fresh bool

	// Rate is how many datagrams a second are sent, each once, and lost where the
	// queue of the collector is full, as libtlsrpt does. 0 sends as fast as the
	// collector takes them: a full queue is waited for, and nothing is lost.
	Rate int
}

// Send sends n datagrams of m, and says how many of them the queue had no room
// for.
func (s *Sender) Send(m *Mixture, n int) (lost int, err error) {
	to := &unix.SockaddrUnix{Name: s.Path}
	fd := -1
	defer func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	start := time.Now()
	for i := range n {
		if s.Rate > 0 {
			s.pace(start, i)
		}
		if fd < 0 {
			if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return lost, fmt.Errorf("eventgen: %w", err)
			}
		}
		switch err := s.send(fd, m.Next(), to); {
		case err == unix.EAGAIN:
			lost++
		case err != nil:
			return lost, fmt.Errorf("eventgen: sending to %s: %w", s.Path, err)
		}
		if s.Fresh {
			unix.Close(fd)
			fd = -1
		}
	}
	return lost, nil
}

func (s *Sender) send(fd int, datagram []byte, to unix.Sockaddr) error {
	flags := 0
	if s.Rate > 0 {
		flags = unix.MSG_DONTWAIT
	}
	for {
		if err := unix.Sendto(fd, datagram, flags, to); err != unix.EINTR {
			return err
		}
	}
}

// pace waits until datagram i is due. The clock is asked over and over: a timer
// would be late, and what came due meanwhile would come in a burst that no queue
// of 10 takes.
func (s *Sender) pace(start time.Time, i int) {
	due := start.Add(time.Duration(i) * time.Second / time.Duration(s.Rate))
	for time.Now().Before(due) {
	}
}

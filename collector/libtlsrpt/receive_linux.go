//go:build linux && !386 && !s390x

package libtlsrpt

import (
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// rawReceiver is a receiver that spends less CPU on a datagram than
// plainReceiver, see BenchmarkReceiver: it empties the queue in one turn, and does
// not tell the scheduler about each call, since none can wait.
type rawReceiver struct {
	conn syscall.RawConn
	buf  []byte
	each func([]byte)

	ready func(fd uintptr) bool // r.readBurst, made once
	fail  error                 // of ready
}

func newReceiver(conn *net.UnixConn) (receiver, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &rawReceiver{conn: raw, buf: make([]byte, maxDatagram+1)}
	r.ready = r.readBurst
	return r, nil
}

func (r *rawReceiver) burst(each func([]byte)) error {
	r.each, r.fail = each, nil
	if err := r.conn.Read(r.ready); err != nil {
		return err
	}
	return r.fail
}

// readBurst is false if it has to be called again when there is something to
// read.
func (r *rawReceiver) readBurst(fd uintptr) bool {
	for n := range maxBurst {
		more, err := r.readOne(fd)
		if err != nil {
			r.fail = err
			return true
		}
		if !more {
			return n > 0
		}
	}
	return true
}

// rest gives up after a second: it cannot know whether an activated socket, to
// which others go on sending, will ever be empty.
func (r *rawReceiver) rest(each func([]byte)) error {
	end := ending{each: each}
	r.each, r.fail = end.take, nil
	latest := time.Now().Add(time.Second)
	err := r.conn.Control(func(fd uintptr) {
		for more := true; more && !end.reached() && time.Now().Before(latest); {
			more, r.fail = r.readOne(fd)
		}
	})
	if err != nil {
		return err
	}
	return r.fail
}

// readOne reads one datagram. more is false if there was none.
func (r *rawReceiver) readOne(fd uintptr) (more bool, err error) {
	for {
		// recvfrom(fd, buf, len, MSG_DONTWAIT, nil, nil): it never blocks, so the
		// scheduler need not be ready to give the processor to another goroutine.
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(r.buf))), uintptr(len(r.buf)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			r.each(r.buf[:n])
			return true, nil
		case syscall.EAGAIN:
			return false, nil
		case syscall.EINTR:
		default:
			return false, fmt.Errorf("recvfrom: %w", errno)
		}
	}
}

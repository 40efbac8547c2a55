package libtlsrpt

import (
	"errors"
	"net"
	"os"
	"time"
)

// maxDatagram is the longest datagram that is read. Linux lets a sender without
// privileges send 212,960 bytes, unless net.core.wmem_max was raised.
const maxDatagram = 256 << 10

// maxBurst bounds how many datagrams are read between two looks at the clock.
const maxBurst = 256

// receiver empties the queue of a socket. Its buffer has one byte more than the
// longest datagram, so a datagram that fills it was longer than that.
type receiver interface {
	// burst waits for a datagram, and hands over all that are queued, at most
	// maxBurst, each valid only during the call. After a call of interrupt the
	// error is os.ErrDeadlineExceeded.
	burst(each func(datagram []byte)) error

	// rest hands over what is still queued, without waiting. It is called after
	// interrupt, and after CloseRead where the socket ends.
	rest(each func(datagram []byte)) error
}

// interrupt ends a burst that waits, and all that follow.
func interrupt(conn *net.UnixConn) { _ = conn.SetReadDeadline(time.Unix(1, 0)) }

// plainReceiver is a receiver as the standard library alone makes it. It serves
// where rawReceiver does not exist, and is what that is measured against.
type plainReceiver struct {
	conn *net.UnixConn
	buf  []byte
}

func newPlainReceiver(conn *net.UnixConn) *plainReceiver {
	return &plainReceiver{conn, make([]byte, maxDatagram+1)}
}

func (r *plainReceiver) burst(each func([]byte)) error {
	n, err := r.conn.Read(r.buf)
	if err != nil {
		return err
	}
	each(r.buf[:n])
	return nil
}

// rest reads until nothing comes any more: a read that never waits is not to be
// had from net.
func (r *plainReceiver) rest(each func([]byte)) error {
	if err := r.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	end := ending{each: each}
	for {
		err := r.burst(end.take)
		if end.reached() {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// maxEmpty is more empty datagrams in a row than anyone has a reason to send.
const maxEmpty = 4096

// ending finds the end of the queue of a socket that takes no more: reading from
// it then gives nothing for ever, as an empty datagram does.
type ending struct {
	each  func(datagram []byte)
	empty int // in a row
}

func (e *ending) take(datagram []byte) {
	if len(datagram) == 0 {
		e.empty++
		return
	}
	for ; e.empty > 0; e.empty-- {
		e.each(nil) // there was more, so it was a datagram
	}
	e.each(datagram)
}

func (e *ending) reached() bool { return e.empty >= maxEmpty }

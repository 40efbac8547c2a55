package libtlsrpt

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var receivers = map[string]func(*net.UnixConn) (receiver, error){
	"raw":   newReceiver,
	"plain": func(c *net.UnixConn) (receiver, error) { return newPlainReceiver(c), nil },
}

func TestReceivers(t *testing.T) {
	for name, make := range receivers {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			recv, err := make(socket)
			if err != nil {
				t.Fatal(err)
			}
			conn := dial(t, path)
			send := func(texts ...string) {
				for _, text := range texts {
					if _, err := conn.Write([]byte(text)); err != nil {
						t.Fatal(err)
					}
				}
			}
			var got []string
			each := func(d []byte) { got = append(got, string(d)) }
			send("a", "", "b")
			for len(got) < 3 {
				if err := recv.burst(each); err != nil {
					t.Fatal(err)
				}
			}
			woken := false
			go func() { time.Sleep(time.Millisecond); send("c") }()
			for !woken {
				if err := recv.burst(each); err != nil {
					t.Fatal(err)
				}
				woken = len(got) == 4
			}
			send("d", "e")
			interrupt(socket)
			if err := recv.burst(each); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("burst after interrupt: %v", err)
			}
			if err := recv.rest(each); err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(got, ","); text != "a,,b,c,d,e" {
				t.Errorf("received %q", text)
			}
			socket.Close()
			if err := recv.rest(each); err == nil {
				t.Error("no error from a closed socket")
			}
		})
	}
}

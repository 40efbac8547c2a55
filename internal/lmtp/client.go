package lmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
)

// ErrRefused means that the server will not take this message, ever.
var ErrRefused = errors.New("lmtp: refused")

// sendTimeout bounds how long a message takes to be handed over.
const sendTimeout = 2 * time.Minute

// Send hands one message, with the null sender, to the server at the socket path.
// Its lines may end in LF. The error is [ErrRefused], or one after which another
// attempt may succeed.
func Send(ctx context.Context, path, to string, message io.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("lmtp: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err = send(smtp.NewClientLMTP(conn), to, message)
	switch reply, replied := errors.AsType[*smtp.SMTPError](err); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case replied && reply.Code >= 500:
		return fmt.Errorf("%w: %s", ErrRefused, reply.Message)
	}
	return fmt.Errorf("lmtp: %w", err)
}

func send(c *smtp.Client, to string, message io.Reader) error {
	if host, err := os.Hostname(); err == nil && !strings.ContainsAny(host, " \r\n") {
		if err := c.Hello(host); err != nil {
			return err
		}
	}
	if err := c.Mail("", nil); err != nil {
		return err
	}
	if err := c.Rcpt(to, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, message); err != nil {
		return err // without the final dot, nothing was sent
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // it is theirs, whatever the answer
	return nil
}

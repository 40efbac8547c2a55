package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/agent"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/dsn"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/lmtp"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/socket"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// returnPath is where bounces of report mail go.
func (c *config) returnPath() submitter.ReturnPath {
	return submitter.ReturnPath{Address: cmp.Or(c.Mail.From, c.Organization.Contact), Delimiter: c.Mail.BounceDelimiter}
}

// defaultBounceSocket lies beside the socket for events.
func defaultBounceSocket() string { return filepath.Join(runtimeDir(), "bounce.sock") }

// bounceSocket is where bounces are taken, "" for nowhere. A relay may return
// bounces without bounce_delimiter, too; then whoever routes them to a socket
// names it.
func (c *config) bounceSocket() string {
	if c.Mail.BounceSocket == "" && c.Mail.BounceDelimiter != "" {
		return defaultBounceSocket()
	}
	return c.Mail.BounceSocket
}

// bounceListener takes bounces for as long as the daemon runs, whichever agent
// submits meanwhile. A nil one takes none.
type bounceListener struct {
	server *lmtp.Server
	agent  atomic.Pointer[agent.Agent]
}

// listenForBounces makes the socket, where there is to be one.
func (c *config) listenForBounces(log *slog.Logger) (*bounceListener, error) {
	path := c.bounceSocket()
	if path == "" {
		return nil, nil
	}
	mode, err := parseMode(c.Mail.BounceMode)
	if err != nil {
		return nil, err
	}
	b := new(bounceListener)
	b.server, err = lmtp.Listen(lmtp.Options{
		Socket: socket.File{Path: path, Mode: mode, User: c.Mail.BounceUser, Group: c.Mail.BounceGroup},
		Keep:   dsn.MaxSize,
		Knows:  func(address string) bool { return b.agent.Load().TakesBounces(address) },
		Deliver: func(ctx context.Context, to string, message io.Reader) error {
			return b.agent.Load().Bounced(ctx, to, message)
		},
		Logger: log,
	})
	return b, err
}

// handTo has a take the bounces from now on.
func (b *bounceListener) handTo(a *agent.Agent) {
	if b != nil {
		b.agent.Store(a)
	}
}

// run takes bounces until ctx ends. Somebody has to be there to take them.
func (b *bounceListener) run(ctx context.Context) error {
	if b == nil {
		return nil
	}
	return b.server.Run(ctx)
}

// errLater marks what a command may do when it is run again: exit code 75.
var errLater = errors.New("later")

func (a *app) bounceCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "bounce [FILE]",
		Short: "Hand a bounce of report mail to the daemon",
		Long: `bounce reads one message, from standard input without FILE or with "-", and hands
it to the daemon through mail.bounce_socket. It is for a pipe transport, an alias
or a .forward file; where the mail server speaks LMTP it needs no command.

The address that the bounce came to is --to, or else ORIGINAL_RECIPIENT or
RECIPIENT of the environment, as Postfix and qmail set them for commands. Without
a usable one, what the message itself says of it has to do.

Exit code 75 asks the mail server to try again: there is no daemon, or its store
cannot be used. A message that is no bounce, or none of ours, is a success.`,
		Example: `  tlsrpt-agent bounce <undeliverable.eml
  tlsrpt-agent bounce --to tls-reports+abc@example.com -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "-"
			if len(args) == 1 {
				name = args[0]
			}
			return a.bounce(cmd, name, to)
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(cmd, fmt.Errorf("want one FILE, got %d arguments", len(args)))
		}
		return nil
	}
	cmd.Flags().StringVar(&to, "to", "", "the `ADDRESS` that the bounce came to")
	return cmd
}

// bounce hands over one message. Whatever keeps it from doing so may be mended
// while the mail server keeps the message.
func (a *app) bounce(cmd *cobra.Command, name, to string) error {
	later := func(err error) error { return fmt.Errorf("%w%w", quiet{errLater}, err) }
	c, err := a.load()
	if err != nil {
		return later(err)
	}
	path := c.bounceSocket()
	if path == "" {
		return later(hint(errors.New("no bounces are taken"),
			"mail.bounce_delimiter or mail.bounce_socket makes \"tlsrpt-agent run\" take them"))
	}
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return later(err)
		}
		defer f.Close()
		in = f
	}
	message, err := withoutFromLine(in)
	if err != nil {
		return later(err)
	}
	if to == "" {
		to = c.returnPath().Address
		for _, name := range []string{"RECIPIENT", "ORIGINAL_RECIPIENT"} {
			if _, ours := c.returnPath().Read(os.Getenv(name)); ours {
				to = os.Getenv(name)
			}
		}
	}
	if err := lmtp.Send(cmd.Context(), path, to, message); errors.Is(err, lmtp.ErrRefused) {
		return fmt.Errorf("%s: %w", to, err)
	} else if err != nil {
		return later(hint(err, fmt.Sprintf("\"tlsrpt-agent run\" listens on %s", path)))
	}
	return nil
}

// withoutFromLine is a message without the line "From sender time" that local
// delivery puts before it.
func withoutFromLine(r io.Reader) (io.Reader, error) {
	const maxLine = 4096
	b := bufio.NewReaderSize(r, maxLine)
	start, err := b.Peek(len("From "))
	if err != nil && err != io.EOF {
		return nil, err
	}
	if string(start) == "From " {
		if _, err := b.ReadSlice('\n'); err != nil && err != io.EOF {
			return nil, fmt.Errorf("the first line: %w", err)
		}
	}
	return b, nil
}

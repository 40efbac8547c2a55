// Command tlsrpt-agent sends SMTP TLS reports (RFC 8460) for an outbound mail
// server. Its commands are listed by "tlsrpt-agent --help".
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "devel"

func main() {
	// Never stopped: a second signal, while the last commit is under way or as the
	// process exits, must not turn an orderly end into a killed one.
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

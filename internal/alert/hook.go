package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"
)

// hookTimeout bounds one notice by one hook.
const hookTimeout = 30 * time.Second

// Exec runs a program for each notice, its JSON on standard input. There is no
// shell: names from strangers are data, in the JSON alone.
type Exec []string

// Notify implements [Hook].
func (e Exec) Notify(ctx context.Context, n Notice) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, e[0], e[1:]...)
	cmd.Stdin = bytes.NewReader(append(text, '\n'))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a child of the program may hold the pipes open
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return fmt.Errorf("alert: %s: %w: %.200q", e[0], err, out.Bytes())
}

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 1<<10 - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// Webhook posts each notice to a URL of the operator's own, which may well have
// a private address.
type Webhook string

// webhookClient follows no redirect: the operator named one place.
var webhookClient = &http.Client{
	Timeout:       hookTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Notify implements [Hook].
func (w Webhook) Notify(ctx context.Context, n Notice) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(w), bytes.NewReader(text))
	if err != nil {
		return errors.New("alert: malformed webhook URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tlsrpt-agent")
	resp, err := webhookClient.Do(req)
	if err != nil {
		// The URL may hold a secret, and *url.Error repeats it.
		return fmt.Errorf("alert: webhook on %s: %w", req.URL.Host, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("alert: webhook on %s: %s", req.URL.Host, resp.Status)
	}
	return nil
}

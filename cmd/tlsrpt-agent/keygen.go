package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

func (a *app) keygenCommand() *cobra.Command {
	var domain, selector, algorithm string
	cmd := &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a signing key and print the DNS record to publish",
		Long: `keygen writes a new private key to FILE, which must not exist, readable by its
owner only, and prints the DNS record that receivers check signatures by: as lines
of a zone file, with the record as one value for a web form in comments. The
selector should be one for reports only. "check" says whether the record is there.`,
		Example: `  tlsrpt-agent keygen --domain example.com /etc/tlsrpt-agent/dkim.pem
  tlsrpt-agent keygen --domain example.com --selector tlsrpt2 --algorithm ed25519 dkim2.pem`,
		Args: oneArg("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if domain == "" {
				return usage(cmd, errors.New("--domain is needed: the domain of organization.contact"))
			}
			return a.keygen(cmd, args[0], submitter.Algorithm(algorithm), domain, selector)
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "the `DOMAIN` that signs, that of organization.contact")
	cmd.Flags().StringVar(&selector, "selector", "tlsrpt", "the `SELECTOR` of the key")
	cmd.Flags().StringVar(&algorithm, "algorithm", string(submitter.RSA), "\"rsa\" (2048 bits), or \"ed25519\" for a second key")
	return cmd
}

func (a *app) keygen(cmd *cobra.Command, path string, algorithm submitter.Algorithm, domain, selector string) error {
	if algorithm != submitter.RSA && algorithm != submitter.Ed25519 {
		return usage(cmd, fmt.Errorf("unknown algorithm %q", algorithm))
	}
	key, err := submitter.GenerateKey(algorithm, domain, selector)
	if err != nil {
		return err
	}
	text, err := key.PEM()
	if err != nil {
		return err
	}
	if err := writeSecret(path, text); err != nil {
		return err
	}
	return a.writeKeyRecord(key)
}

// writeKeyRecord writes the record of a key as a zone file may have it, and in
// comments as one value.
func (a *app) writeKeyRecord(key *submitter.Key) error {
	_, err := fmt.Fprintf(a.stdout, `%s. IN TXT (%s)
; Where a form asks for name and value of a TXT record, without quotation marks:
; name:  %s
; value: %s
`, key.Name(), quoted(key.TXT()), key.Name(), key.TXT())
	return err
}

// writeSecret makes a file that its owner alone may read. An older file stays:
// a key that is overwritten cannot be had back.
func writeSecret(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hint(fmt.Errorf("%s exists already", path), "move it away, or name another file")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// quoted is a TXT record as a zone file writes it: in strings of at most 255
// bytes (RFC 1035, section 3.3.14).
func quoted(txt string) string {
	const size = 255
	var s string
	for ; len(txt) > size; txt = txt[size:] {
		s += fmt.Sprintf(" %q", txt[:size])
	}
	return s + fmt.Sprintf(" %q ", txt)
}

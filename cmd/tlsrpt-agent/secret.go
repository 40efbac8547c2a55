package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// readSecret reads a key or a password. A service may not read the file itself,
// which belongs to root: systemd hands it over as a credential, called like the
// file (LoadCredential=dkim.pem:...), or like its folder and the file where the
// whole folder was named (credentials_dkim.pem). See systemd.exec(5). Elsewhere
// it is the file.
func readSecret(path string) ([]byte, error) {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		name := filepath.Base(path)
		for _, credential := range []string{name, filepath.Base(filepath.Dir(path)) + "_" + name} {
			text, err := os.ReadFile(filepath.Join(dir, credential))
			if !errors.Is(err, fs.ErrNotExist) {
				return text, err
			}
		}
	}
	return os.ReadFile(path)
}

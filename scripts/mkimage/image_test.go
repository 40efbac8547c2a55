package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// readTar is the files of a tar, and its headers.
func readTar(t *testing.T, r io.Reader) (map[string][]byte, map[string]*tar.Header) {
	t.Helper()
	files, headers := map[string][]byte{}, map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name], headers[h.Name] = text, h
	}
}

func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// TestImage walks an image as an engine does: every blob is where its digest says,
// and both ways to the layer lead to the same one.
func TestImage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("\x7fELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	img := image{arch: "arm64", tag: "tlsrpt-agent:1.2.3", version: "1.2.3", created: time.Unix(1795046400, 0).UTC()}
	for _, arg := range []string{"/usr/bin/tlsrpt-agent=" + program + ",0755", "/var/lib/tlsrpt-agent=,0750,65532", "/tmp=,1777"} {
		e, err := parseEntry(arg)
		if err != nil {
			t.Fatal(err)
		}
		img.entries = append(img.entries, e)
	}
	var b, again bytes.Buffer
	if img.write(&b) != nil || img.write(&again) != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Fatal("two images of the same files differ")
	}
	files, _ := readTar(t, &b)
	blob := func(d descriptor) []byte {
		t.Helper()
		text := files[blobPath(d.Digest)]
		if digest(text) != d.Digest || len(text) != d.Size {
			t.Fatalf("blob %s is not what it should be", d.Digest)
		}
		return text
	}
	var index struct{ Manifests []descriptor }
	decode(t, files["index.json"], &index)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, blob(index.Manifests[0]), &manifest)
	var config struct {
		Architecture, OS string
		Config           struct {
			User       string
			Entrypoint []string
			Volumes    map[string]any
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	decode(t, blob(manifest.Config), &config)
	if config.Architecture != "arm64" || config.OS != "linux" || config.Config.User != user || len(config.Config.Volumes) != 1 ||
		!slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/tlsrpt-agent"}) {
		t.Errorf("config %+v", config)
	}
	z, err := gzip.NewReader(bytes.NewReader(blob(manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil || digest(layer) != config.RootFS.DiffIDs[0] {
		t.Fatalf("the layer is not that of the config: %v", err)
	}
	_, headers := readTar(t, bytes.NewReader(layer))
	for name, want := range map[string]struct {
		mode int64
		uid  int
	}{"usr/": {0o755, 0}, "usr/bin/tlsrpt-agent": {0o755, 0}, "var/lib/tlsrpt-agent/": {0o750, 65532}, "tmp/": {0o1777, 0}} {
		if h := headers[name]; h == nil || h.Mode != want.mode || h.Uid != want.uid || h.Gid != want.uid {
			t.Errorf("%s: %+v", name, h)
		}
	}
	var old []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	decode(t, files["manifest.json"], &old)
	if old[0].Config != blobPath(manifest.Config.Digest) || old[0].Layers[0] != blobPath(manifest.Layers[0].Digest) || old[0].RepoTags[0] != img.tag {
		t.Errorf("manifest.json is of another image: %+v", old)
	}
	if strings.TrimSpace(string(files["oci-layout"])) == "" {
		t.Error("no oci-layout")
	}
}

func TestParseEntry(t *testing.T) {
	for _, bad := range []string{"/a=/does/not/exist", "/a=,9", "/a=,0755,root"} {
		if _, err := parseEntry(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

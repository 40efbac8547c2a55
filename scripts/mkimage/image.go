package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// The user of the image, and its group.
const user = "65532:65532"

// entry is a file of the image, or a folder.
type entry struct {
	path    string // without a slash at either end
	file    bool
	content []byte
	mode    int64
	uid     int // and gid
}

// image is all that goes into the file.
type image struct {
	arch, tag, version string
	created            time.Time
	entries            []entry
}

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func digest(blob []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(blob)) }

// blobPath is where a layout has the blob of a digest.
func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

func describe(mediaType string, blob []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest(blob), Size: len(blob)}
}

// write writes the image: the layout, and manifest.json beside it for Docker
// before version 25.
func (img *image) write(w io.Writer) error {
	layer, err := img.layer()
	if err != nil {
		return err
	}
	packed, err := compress(layer)
	if err != nil {
		return err
	}
	config := mustJSON(img.config(digest(layer)))
	manifest := mustJSON(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest,
		"config": describe(typeConfig, config), "layers": []descriptor{describe(typeLayer, packed)},
	})
	top := describe(typeManifest, manifest)
	_, version, _ := strings.Cut(img.tag, ":")
	top.Annotations = map[string]string{"io.containerd.image.name": "docker.io/library/" + img.tag, "org.opencontainers.image.ref.name": version}
	files := []entry{
		{path: "oci-layout", content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "index.json", content: mustJSON(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{top}})},
		{path: "manifest.json", content: mustJSON([]any{map[string]any{
			"Config": blobPath(digest(config)), "RepoTags": []string{img.tag}, "Layers": []string{blobPath(digest(packed))},
		}})},
	}
	for _, blob := range [][]byte{config, manifest, packed} {
		files = append(files, entry{path: blobPath(digest(blob)), content: blob})
	}
	for i := range files {
		files[i].file, files[i].mode = true, 0o644
	}
	return writeTar(w, img.created, files)
}

// config is what runs, as whom and where.
func (img *image) config(diffID string) map[string]any {
	return map[string]any{
		"created": img.created.Format(time.RFC3339), "architecture": img.arch, "os": "linux",
		"config": map[string]any{
			"User":       user,
			"Entrypoint": []string{"/usr/bin/tlsrpt-agent"},
			"Cmd":        []string{"run"},
			"Env":        []string{"PATH=/usr/bin", "STATE_DIRECTORY=/var/lib/tlsrpt-agent", "RUNTIME_DIRECTORY=/run/tlsrpt-agent"},
			"Volumes":    map[string]any{"/var/lib/tlsrpt-agent": struct{}{}},
			"WorkingDir": "/var/lib/tlsrpt-agent",
			"StopSignal": "SIGTERM",
			"Labels": map[string]string{
				"org.opencontainers.image.title":    "tlsrpt-agent",
				"org.opencontainers.image.version":  img.version,
				"org.opencontainers.image.licenses": "MIT",
			},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{diffID}},
		"history": []any{map[string]any{"created": img.created.Format(time.RFC3339), "created_by": "mkimage"}},
	}
}

// layer is the files, and the folders that they are in.
func (img *image) layer() ([]byte, error) {
	entries := slices.Clone(img.entries)
	has := map[string]bool{}
	for _, e := range img.entries {
		has[e.path] = true
	}
	for _, e := range img.entries {
		for dir := path.Dir(e.path); dir != "." && !has[dir]; dir = path.Dir(dir) {
			has[dir] = true
			entries = append(entries, entry{path: dir, mode: 0o755})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	var b bytes.Buffer
	err := writeTar(&b, img.created, entries)
	return b.Bytes(), err
}

func writeTar(w io.Writer, created time.Time, entries []entry) error {
	t := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: e.path + "/", Mode: e.mode, Uid: e.uid, Gid: e.uid, ModTime: created}
		if e.file {
			h.Typeflag, h.Name, h.Size = tar.TypeReg, e.path, int64(len(e.content))
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(e.content); err != nil {
			return err
		}
	}
	return t.Close()
}

func compress(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	err := z.Close()
	return b.Bytes(), err
}

// mustJSON is of values that JSON always has a form for.
func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// Command mkimage writes a container image of one layer, without a container
// engine: a tar file that is an OCI image layout, and what "docker load" took
// before it knew that.
//
//	mkimage -o FILE -arch GOARCH -tag NAME:TAG [-version V] [-created SECONDS] PATH[=FILE[,MODE[,UID]]]...
//
// Each PATH of the image is FILE here, or an empty folder. MODE is octal; without it,
// files have 0644 and folders 0755. All belongs to root unless UID says otherwise.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run() error {
	var img image
	out := flag.String("o", "", "the `FILE` to write")
	flag.StringVar(&img.arch, "arch", "", "the architecture, as `GOARCH` says it")
	flag.StringVar(&img.tag, "tag", "", "the `NAME:TAG` of the image")
	flag.StringVar(&img.version, "version", "", "the version of the program")
	created := flag.Int64("created", 0, "the time of everything in it, Unix `SECONDS`")
	flag.Parse()
	img.created = time.Unix(*created, 0).UTC()
	for _, arg := range flag.Args() {
		e, err := parseEntry(arg)
		if err != nil {
			return err
		}
		img.entries = append(img.entries, e)
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	if err := img.write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// parseEntry reads PATH[=FILE[,MODE[,UID]]].
func parseEntry(arg string) (entry, error) {
	path, rest, _ := strings.Cut(arg, "=")
	file, rest, hasMode := strings.Cut(rest, ",")
	modeText, uidText, hasUID := strings.Cut(rest, ",")
	e := entry{path: strings.Trim(path, "/"), mode: 0o755}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return entry{}, err
		}
		e.file, e.content, e.mode = true, text, 0o644
	}
	if hasMode {
		mode, err := strconv.ParseInt(modeText, 8, 64)
		if err != nil {
			return entry{}, fmt.Errorf("%s: mode: %w", arg, err)
		}
		e.mode = mode
	}
	if hasUID {
		uid, err := strconv.Atoi(uidText)
		if err != nil {
			return entry{}, fmt.Errorf("%s: uid: %w", arg, err)
		}
		e.uid = uid
	}
	return e, nil
}

//go:build !linux

package main

import (
	"errors"
	"io/fs"
)

func mayWrite(string) error { return errors.ErrUnsupported }

func networkFileSystem(string) (string, error) { return "", errors.ErrUnsupported }

func ownerOf(fs.FileInfo) (uid, gid uint32, ok bool) { return 0, 0, false }

func clockSynchronised() (bool, error) { return false, errors.ErrUnsupported }

package socket

import (
	"fmt"
	"os/user"
	"strconv"
)

// owner is the numbers of a user and a group, by name or number; -1 is "".
func owner(userName, groupName string) (uid, gid int, err error) {
	uid, err = number(userName, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("socket: its user: %w", err)
	}
	gid, err = number(groupName, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("socket: its group: %w", err)
	}
	return uid, gid, nil
}

// number is the number of name, which may be one itself.
func number(name string, lookup func(string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	id, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

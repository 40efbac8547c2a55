//go:build !unix

package submitter

import "os/exec"

// withChildren leaves cmd as it is: there are no process groups.
func withChildren(*exec.Cmd) {}

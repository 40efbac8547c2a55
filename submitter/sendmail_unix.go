//go:build unix

package submitter

import (
	"os/exec"
	"syscall"
)

// withChildren makes the end of cmd's context kill all that cmd has started: it
// leads a process group of its own.
func withChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

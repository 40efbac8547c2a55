package collector

import "golang.org/x/sys/unix"

// lowerPriority lets the calling thread, on Linux a thing of its own to the
// scheduler, run only when others leave it time. It may be refused, which costs
// nothing but speed.
func lowerPriority() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) }

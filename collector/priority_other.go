//go:build !linux

package collector

// lowerPriority does nothing: elsewhere the priority is that of the process.
func lowerPriority() {}

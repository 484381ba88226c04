package sysprobe

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Self returns what this process has cost so far: CPU time in user and kernel
// mode, and the largest resident memory it ever had. Children are not counted.
// What the kernel does not tell is 0.
func Self() (cpu time.Duration, peakRSSBytes int64) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, 0
	}
	cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	// ru_maxrss survives an exec, and so begins with the size of whoever
	// started this process; VmHWM begins anew.
	if kB, ok := (tree{}).field("/proc/self/status", "VmHWM"); ok {
		if n, err := strconv.ParseInt(strings.TrimSuffix(kB, " kB"), 10, 64); err == nil {
			return cpu, n * 1024
		}
	}
	return cpu, usage.Maxrss * 1024
}

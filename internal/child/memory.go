package child

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// The kernel starts the account of a child's memory with the peak of the process
// that forked it (exec keeps what the borrowed memory once was). So what is asked
// when the child has ended says nothing as long as it is not above that, and the
// child's own peak is read while it runs.

// Memory is read often at first, for children that end soon.
const firstLook, laterLooks = 5 * time.Millisecond, 250 * time.Millisecond

// watchMemory keeps the leader's peak until it ends.
func (p *Process) watchMemory() {
	for wait := firstLook; ; wait = min(2*wait, laterLooks) {
		select {
		case <-p.exited:
			return
		case <-time.After(wait):
		}
		p.mu.Lock()
		if !p.reaped {
			p.peak = max(p.peak, peakOf(p.pid))
		}
		p.mu.Unlock()
	}
}

// peakRSS is the peak of the child from the account of when it ended, in bytes.
func (p *Process) peakRSS(account int64) int64 {
	if account > p.forkedWith || p.peak == 0 {
		return account
	}
	return min(p.peak, account)
}

// ownPeak is at least what a child's account starts with, in bytes.
func ownPeak() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Maxrss * 1024
}

// peakOf reads a living process's own peak, in bytes; 0 when it has ended.
func peakOf(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(status, []byte("\nVmHWM:"))
	if !ok {
		return 0
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kilobytes, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes * 1024
}

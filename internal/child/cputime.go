package child

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// userTick is the unit of times in /proc: USER_HZ, which is 100 on every
// architecture that Go runs on under Linux (proc(5)).
const userTick = time.Second / 100

// CPUTime is the processor time that the child's group has used so far, forked
// workers and those that were waited for included. It reports false once the
// child has ended.
func (p *Process) CPUTime() (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.exited:
		return 0, false
	default:
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, false
	}
	var sum time.Duration
	found := false
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		if group, cpu, ok := parseStat(stat); ok && group == p.pid {
			sum += cpu
			found = true
		}
	}
	return sum, found
}

// parseStat reads pgrp and the times from /proc/PID/stat. The second field is
// the program's name in parentheses and may hold anything, parentheses and
// spaces included, so fields are counted from the last one.
func parseStat(stat []byte) (group int, cpu time.Duration, ok bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, 0, false
	}
	const state, pgrp, utime, cstime = 3, 5, 14, 17 // as proc(5) counts them
	fields := bytes.Fields(stat[end+1:])
	if len(fields) <= cstime-state {
		return 0, 0, false
	}
	group, err := strconv.Atoi(string(fields[pgrp-state]))
	if err != nil {
		return 0, 0, false
	}
	var ticks int64
	for i := utime; i <= cstime; i++ {
		n, err := strconv.ParseInt(string(fields[i-state]), 10, 64)
		if err != nil {
			return 0, 0, false
		}
		ticks += n
	}
	return group, time.Duration(ticks) * userTick, true
}

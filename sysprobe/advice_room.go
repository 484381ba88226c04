package sysprobe

import (
	"fmt"
	"slices"
	"strconv"
)

const (
	fewInodes    = 10_000
	lowFree      = 0.10     // of a store's size
	lowFreeBytes = 10 << 30 // below this much, whatever the size
)

// adviseStore speaks up when the store is short of space or inodes, cannot be
// written, or is somebody else's disk.
func adviseStore(f Facts) []Advice {
	if f.Store == nil {
		return nil
	}
	s := *f.Store
	list := adviseSpace(s)
	if s.FreeInodes != Unknown && s.FreeInodes < fewInodes {
		list = append(list, Advice{
			Key: "inodes:" + s.Path, Current: strconv.FormatInt(s.FreeInodes, 10), Wanted: strconv.Itoa(fewInodes),
			Reason:   "a directory-format set takes one file per table, and without an inode no file can be made however much space is free",
			Severity: Urgent,
		})
	}
	if slices.Contains(s.Options, "ro") {
		list = append(list, Advice{
			Key: "store:" + s.Path, Current: "read-only", Wanted: "writable",
			Reason: "no backup can be stored; a file system that turned read-only by itself has a disk error behind it", Severity: Urgent,
		})
	}
	if s.Network {
		list = append(list, Advice{
			Key: "network:" + s.Path, Current: s.Type, Wanted: "a local disk, or a hard mount with sync semantics",
			Reason:   "locks, rename and fsync are only as good as the server's: a soft mount can lose bytes that were reported as written",
			Warning:  "mount NFS with hard and nfsvers=4 or later, and run verify after each backup",
			Severity: Suggested,
		})
	}
	return append(list, adviseSeparation(f)...)
}

func adviseSpace(s Filesystem) []Advice {
	low := int64(lowFree * float64(s.TotalBytes))
	if s.TotalBytes == 0 || (s.FreeBytes >= low && s.FreeBytes >= lowFreeBytes) {
		return nil
	}
	a := Advice{
		Key: "space:" + s.Path, Current: bytesText(s.FreeBytes), Wanted: bytesText(max(low, lowFreeBytes)),
		Reason:   "a run that fills the store fails at its end; delete old sets, or move the store",
		Severity: Suggested,
	}
	if s.FreeBytes < s.TotalBytes/50 || s.FreeBytes < lowFreeBytes/10 {
		a.Severity = Urgent
	}
	return []Advice{a}
}

// adviseSeparation: a backup on the disk it protects is lost with it.
func adviseSeparation(f Facts) []Advice {
	for _, data := range f.Data {
		if data.Mountpoint == "" || data.Mountpoint != f.Store.Mountpoint {
			continue
		}
		return []Advice{{
			Key: "place:" + f.Store.Path, Current: "same file system as " + data.Path, Wanted: "another disk or host",
			Reason:   "what destroys the data destroys the backups, and a full store stops the server",
			Severity: Suggested,
		}}
	}
	return nil
}

// adviseMemory compares what the host has with what this process may use.
func adviseMemory(f Facts) []Advice {
	var list []Advice
	if f.MemoryLimitBytes > 0 && f.MemoryLimitBytes < f.HostMemoryBytes/4 {
		list = append(list, Advice{
			Key: "memory_limit", Current: bytesText(f.MemoryLimitBytes), Wanted: "as large as the widest row needs, times the number of processes",
			Reason: fmt.Sprintf("the cgroup allows far less than the host's %s: pg_dump holds a whole row in memory, several times over, and is killed when it does not fit",
				bytesText(f.HostMemoryBytes)),
			Severity: Suggested,
		})
	}
	if f.SwapBytes == 0 && f.Settings.OvercommitMemory == 1 {
		list = append(list, Advice{
			Key: "swap", Current: "none, with vm.overcommit_memory 1", Wanted: "some swap, e.g. 2 GiB",
			Reason:   "every allocation is granted and nothing can be paged out: the first shortage wakes the OOM killer",
			Severity: Suggested,
		})
	}
	if f.SwapBytes == 0 && f.Settings.OvercommitMemory == 2 {
		list = append(list, Advice{
			Key: "swap", Current: fmt.Sprintf("none, with vm.overcommit_memory 2 and ratio %d", f.Settings.OvercommitRatio),
			Wanted:   "swap, or vm.overcommit_ratio of 80 to 95",
			Reason:   "without swap only vm.overcommit_ratio percent of memory can ever be allocated: pg_dump fails with memory free",
			Severity: Suggested,
		})
	}
	return list
}

// bytesText is a size for people: two digits after the point above 1 GiB.
func bytesText(n int64) string {
	if n >= 1<<30 {
		return strconv.FormatFloat(float64(n)/(1<<30), 'f', 2, 64) + " GiB"
	}
	return strconv.FormatInt(n/mib, 10) + " MiB"
}

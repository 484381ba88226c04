package sysprobe

import (
	"slices"
	"strconv"
	"strings"
)

// The values that are advised. scripts/tune-host.sh applies the same.
const (
	wantedSwappiness      = 10
	wantedDirtyRatio      = 10
	wantedDirtyBackground = 5
	wantedOpenFiles       = 65536
	wantedProcesses       = 32768
)

func adviseKernel(s Settings) []Advice {
	list := adviseOvercommit(s)
	list = append(list, atMost("vm.swappiness", s.Swappiness, wantedSwappiness,
		"keeps the server's memory resident when a dump fills the page cache", "")...)
	list = append(list, atMost("vm.dirty_ratio", s.DirtyRatio, wantedDirtyRatio,
		"a dump writes faster than disks do: with less dirty memory writers are slowed early, not stopped for seconds",
		"the manual names no value; 0 means vm.dirty_bytes is set, which is as good")...)
	list = append(list, atMost("vm.dirty_background_ratio", s.DirtyBackgroundRatio, wantedDirtyBackground,
		"starts writing back early, so that checkpoints and fsync find little left to do",
		"the manual names no value; 0 means vm.dirty_background_bytes is set, which is as good")...)
	return append(list, adviseHugepages(s)...)
}

// adviseOvercommit accepts 2: somebody who set it followed the manual.
func adviseOvercommit(s Settings) []Advice {
	if s.OvercommitMemory == Unknown {
		return nil
	}
	a := Advice{
		Key: "vm.overcommit_memory", Current: strconv.Itoa(s.OvercommitMemory), Wanted: "1",
		Reason: "a fork of a large process (a server beside dump, compressor and hooks) is then never refused for memory that it will not touch",
		Warning: "PostgreSQL's manual (Linux Memory Overcommit) recommends 2, which fits a host that only runs the server: allocations then fail with an error, " +
			"and the OOM killer is far less likely to come. 1 suits hosts with other work beside it, and needs memory to spare; 2 needs swap and a fitting vm.overcommit_ratio. A value of 2 is left alone",
	}
	if s.OvercommitMemory == 0 {
		a.Severity = Suggested
	}
	return []Advice{a}
}

func atMost(key string, current, wanted int, reason, warning string) []Advice {
	if current == Unknown {
		return nil
	}
	a := Advice{Key: key, Current: strconv.Itoa(current), Wanted: strconv.Itoa(wanted), Reason: reason, Warning: warning}
	if current > wanted {
		a.Severity = Suggested
	}
	return []Advice{a}
}

func adviseHugepages(s Settings) []Advice {
	if s.TransparentHugepages == "" {
		return nil
	}
	a := Advice{
		Key: "transparent_hugepage", Current: s.TransparentHugepages, Wanted: "madvise or never",
		Reason:  "merging pages in the background stalls processes with large shared memory",
		Warning: "tune-host.sh leaves it alone. The manual recommends explicit huge pages (huge_pages, vm.nr_hugepages) instead",
	}
	if s.TransparentHugepages == "always" {
		a.Severity = Suggested
	}
	return []Advice{a}
}

// adviseLimits wants limits for the server's user. Without a user it has
// nothing to say.
func adviseLimits(f Facts) []Advice {
	if f.PostgresUser == "" {
		return nil
	}
	p := f.Postgres
	return []Advice{
		adviseLimit("nofile", f.PostgresUser, p.OpenFilesSoft, p.OpenFilesHard, wantedOpenFiles,
			"each server process opens up to max_files_per_process files, and a dump of thousands of tables makes it do so"),
		adviseLimit("nproc", f.PostgresUser, p.ProcessesSoft, p.ProcessesHard, wantedProcesses,
			"connections, parallel workers, and the dump's processes all count for one user"),
	}
}

func adviseLimit(key, user string, soft, hard, wanted int64, reason string) Advice {
	a := Advice{
		Key: key, Current: limitText(soft) + "/" + limitText(hard), Wanted: strconv.FormatInt(wanted, 10),
		Reason: reason + " (user " + user + ", soft/hard)",
		Warning: "limits.conf holds for logins, cron and su; a server or backup that systemd starts has LimitNOFILE and LimitNPROC of its unit. " +
			"The manual would rather lower max_files_per_process than raise nofile",
	}
	if soft < wanted || hard < wanted {
		a.Severity = Suggested
	}
	return a
}

func limitText(n int64) string {
	switch n {
	case Unknown:
		return "not configured"
	case Unlimited:
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

func adviseDevice(d BlockDevice) []Advice {
	var list []Advice
	if d.Scheduler != "" {
		list = append(list, adviseScheduler(d))
	}
	if d.AddRandom != Unknown {
		a := Advice{
			Key: "add_random:" + d.Name, Current: strconv.Itoa(d.AddRandom), Wanted: "0",
			Reason: "the kernel has better sources of randomness than the timing of every disk request",
		}
		if d.AddRandom > 0 {
			a.Severity = Suggested
		}
		list = append(list, a)
	}
	return list
}

// adviseScheduler wants a deadline scheduler on disks that order their
// requests here, and accepts none on those that do not.
func adviseScheduler(d BlockDevice) Advice {
	wanted := "mq-deadline"
	if slices.Contains(d.AvailableSchedulers, "deadline") {
		wanted = "deadline" // kernels before 5.0
	}
	accepted := []string{"mq-deadline", "deadline"}
	a := Advice{
		Key: "scheduler:" + d.Name, Current: d.Scheduler, Wanted: wanted,
		Reason: "bounds how long a read waits behind a dump's writes",
	}
	if d.virtual() || !d.Rotational {
		accepted = append(accepted, "none", "noop")
		a.Wanted = "none or " + wanted
		a.Reason = "NVMe, solid-state and virtual disks order requests themselves, so none is fine; a deadline scheduler bounds waiting"
	}
	if !slices.Contains(accepted, d.Scheduler) && (d.virtual() || slices.Contains(d.AvailableSchedulers, wanted)) {
		a.Severity = Suggested
	}
	return a
}

// adviseMount looks at how a data directory is mounted.
func adviseMount(data Filesystem) []Advice {
	if data.Mountpoint == "" {
		return nil
	}
	a := Advice{
		Key: "mount:" + data.Mountpoint, Current: accessTimes(data.Options), Wanted: "noatime",
		Reason:  "reading a table then never writes an inode; noatime implies nodiratime",
		Warning: "programs that look at access times (some mail readers, tmp cleaners) stop working on this file system",
	}
	if !slices.Contains(data.Options, "noatime") {
		a.Severity = Suggested
	}
	list := []Advice{a}
	if slices.Contains(data.Options, "data=writeback") {
		list = append(list, Advice{
			Key: "journal:" + data.Mountpoint, Current: "data=writeback", Wanted: "data=ordered",
			Reason: "after a crash, files written shortly before may hold other files' old blocks",
			Warning: "the manual allows it for PostgreSQL's own files, whose order WAL keeps; backup sets, configuration " +
				"and everything else on the file system have no WAL. tune-host.sh never sets or removes it",
			Severity: Suggested,
		})
	}
	return list
}

func accessTimes(options []string) string {
	var found []string
	for _, o := range options {
		if strings.HasSuffix(o, "atime") || o == "nodiratime" {
			found = append(found, o)
		}
	}
	if len(found) == 0 {
		return "strictatime"
	}
	return strings.Join(found, ",")
}

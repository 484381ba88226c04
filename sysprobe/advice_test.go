package sysprobe

import (
	"strings"
	"testing"
)

// tuned is a host about which there is nothing to say.
func tuned() Facts {
	return Facts{
		CPUs: 8, HostMemoryBytes: 16 << 30, AvailableMemoryBytes: 8 << 30, SwapBytes: 2 << 30,
		PostgresUser: "postgres",
		Settings:     Settings{OvercommitMemory: 1, OvercommitRatio: 50, Swappiness: 10, DirtyRatio: 10, DirtyBackgroundRatio: 5, TransparentHugepages: "madvise"},
		Postgres:     ResourceLimits{65536, 65536, 32768, Unlimited},
		BlockDevices: []BlockDevice{{Name: "sda", Rotational: true, Scheduler: "mq-deadline", AvailableSchedulers: []string{"none", "mq-deadline"}}},
		Store:        &Filesystem{Path: "/backups", Mountpoint: "/backups", Type: "xfs", Options: []string{"rw"}, FreeBytes: 500 << 30, TotalBytes: 1 << 40, FreeInodes: Unknown},
		Data:         []Filesystem{{Path: "/srv/pg", Mountpoint: "/srv", Type: "ext4", Options: []string{"noatime", "rw"}, FreeBytes: 1, TotalBytes: 1 << 40, FreeInodes: 1}},
	}
}

func TestAdviseIsContentWithATunedHost(t *testing.T) {
	list := Advise(tuned())
	if len(list) < 9 {
		t.Errorf("got %d rows, want every setting listed", len(list))
	}
	for _, a := range list {
		if a.Severity != Fine {
			t.Errorf("%s is %s: %+v", a.Key, a.Severity, a)
		}
		if a.Reason == "" || a.Wanted == "" || a.Current == "" {
			t.Errorf("%s lacks a word: %+v", a.Key, a)
		}
	}
	if got := Worst(list); got != Fine {
		t.Errorf("worst: got %s, want fine", got)
	}
}

func TestAdvise(t *testing.T) {
	disk := func(name string, rotational bool, scheduler string, available ...string) func(*Facts) {
		return func(f *Facts) {
			f.BlockDevices = []BlockDevice{{Name: name, Rotational: rotational, Scheduler: scheduler, AvailableSchedulers: available}}
		}
	}
	tests := []struct {
		name     string
		change   func(*Facts)
		key      string // of the advice that is looked at
		wanted   string // its Wanted, when not empty
		severity Severity
		warning  string // part of its Warning
	}{
		{"overcommit guessed", func(f *Facts) { f.Settings.OvercommitMemory = 0 }, "vm.overcommit_memory", "1", Suggested, "recommends 2"},
		{"overcommit as the manual wants it", func(f *Facts) { f.Settings.OvercommitMemory = 2 }, "vm.overcommit_memory", "1", Fine, "recommends 2"},
		{"strict overcommit without swap", func(f *Facts) { f.Settings.OvercommitMemory, f.SwapBytes = 2, 0 }, "swap", "", Suggested, ""},
		{"overcommit without swap", func(f *Facts) { f.SwapBytes = 0 }, "swap", "", Suggested, ""},
		{"swappiness", func(f *Facts) { f.Settings.Swappiness = 60 }, "vm.swappiness", "10", Suggested, ""},
		{"less swappiness is fine", func(f *Facts) { f.Settings.Swappiness = 1 }, "vm.swappiness", "10", Fine, ""},
		{"dirty", func(f *Facts) { f.Settings.DirtyRatio = 20 }, "vm.dirty_ratio", "10", Suggested, ""},
		{"dirty by bytes", func(f *Facts) { f.Settings.DirtyRatio = 0 }, "vm.dirty_ratio", "10", Fine, "vm.dirty_bytes"},
		{"dirty background", func(f *Facts) { f.Settings.DirtyBackgroundRatio = 10 }, "vm.dirty_background_ratio", "5", Suggested, ""},
		{"huge pages", func(f *Facts) { f.Settings.TransparentHugepages = "always" }, "transparent_hugepage", "", Suggested, "huge_pages"},
		{"nofile unconfigured", func(f *Facts) { f.Postgres = unknownLimits() }, "nofile", "65536", Suggested, "LimitNOFILE"},
		{"nproc soft only", func(f *Facts) { f.Postgres.ProcessesHard = 100 }, "nproc", "32768", Suggested, ""},
		{"disk without scheduler", disk("sda", true, "none", "none", "mq-deadline"), "scheduler:sda", "mq-deadline", Suggested, ""},
		{"disk with bfq", disk("sda", true, "bfq", "bfq", "mq-deadline"), "scheduler:sda", "mq-deadline", Suggested, ""},
		{"disk of an old kernel", disk("sda", true, "cfq", "noop", "deadline", "cfq"), "scheduler:sda", "deadline", Suggested, ""},
		{"solid-state disk", disk("sda", false, "none", "none", "mq-deadline"), "scheduler:sda", "none or mq-deadline", Fine, ""},
		{"NVMe", disk("nvme0n1", false, "none", "none", "mq-deadline"), "scheduler:nvme0n1", "", Fine, ""},
		{"virtual disk that calls itself rotational", disk("vda", true, "none", "none", "mq-deadline"), "scheduler:vda", "", Fine, ""},
		{"virtual disk with bfq", disk("vda", true, "bfq", "none", "bfq"), "scheduler:vda", "", Suggested, ""},
		{"add_random", func(f *Facts) { f.BlockDevices[0].AddRandom = 1 }, "add_random:sda", "0", Suggested, ""},
		{"relatime", func(f *Facts) { f.Data[0].Options = []string{"relatime", "nodiratime"} }, "mount:/srv", "noatime", Suggested, "access times"},
		{"writeback is warned of", func(f *Facts) { f.Data[0].Options = []string{"noatime", "data=writeback"} }, "journal:/srv", "data=ordered", Suggested, "never"},
		{"little space", func(f *Facts) { f.Store.FreeBytes = 60 << 30 }, "space:/backups", "", Suggested, ""},
		{"no space", func(f *Facts) { f.Store.FreeBytes = 500 << 20 }, "space:/backups", "", Urgent, ""},
		{"few inodes", func(f *Facts) { f.Store.FreeInodes = 9 }, "inodes:/backups", "", Urgent, ""},
		{"read-only store", func(f *Facts) { f.Store.Options = []string{"ro"} }, "store:/backups", "", Urgent, ""},
		{"network store", func(f *Facts) { f.Store.Type, f.Store.Network = "nfs4", true }, "network:/backups", "", Suggested, "hard"},
		{"store beside the data", func(f *Facts) { f.Store.Mountpoint = "/srv" }, "place:/backups", "", Suggested, ""},
		{"small memory limit", func(f *Facts) { f.MemoryLimitBytes = 1 << 30 }, "memory_limit", "", Suggested, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := tuned()
			test.change(&f)
			list := Advise(f)
			if got := Worst(list); got != test.severity {
				t.Errorf("worst: got %s, want %s", got, test.severity)
			}
			for _, a := range list {
				if a.Key != test.key {
					continue
				}
				if a.Severity != test.severity || !strings.Contains(a.Warning, test.warning) {
					t.Errorf("got %+v, want %s with warning %q", a, test.severity, test.warning)
				}
				if test.wanted != "" && a.Wanted != test.wanted {
					t.Errorf("wanted: got %q, want %q", a.Wanted, test.wanted)
				}
				return
			}
			t.Errorf("no advice about %s in %+v", test.key, list)
		})
	}
}

// Whatever the host is like, ext4's writeback journal is never what is wanted.
func TestAdviseNeverWantsWriteback(t *testing.T) {
	f := tuned()
	f.Data[0].Options = []string{"relatime", "data=ordered"}
	for _, a := range Advise(f) {
		if strings.Contains(a.Wanted, "writeback") {
			t.Errorf("%s wants %s", a.Key, a.Wanted)
		}
	}
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name                 string
		facts                Facts
		databases, jobs, zip int
		budget               int64
	}{
		{"one processor", Facts{CPUs: 1, AvailableMemoryBytes: 4 << 30}, 1, 1, 1, 3<<30 - 64*mib},
		{"two", Facts{CPUs: 2, AvailableMemoryBytes: 4 << 30}, 2, 2, 2, 3<<30 - 64*mib},
		{"four", Facts{CPUs: 4, AvailableMemoryBytes: 16 << 30}, 4, 2, 2, 12<<30 - 64*mib},
		{"sixty-four", Facts{CPUs: 64, AvailableMemoryBytes: 256 << 30}, 4, 8, 2, 192<<30 - 64*mib},
		{"a limit of 256 MiB", Facts{CPUs: 8, AvailableMemoryBytes: 16 << 30, MemoryLimitBytes: 256 * mib, MemoryUsageBytes: 16 * mib}, 1, 1, 8, 116 * mib},
		{"a limit of 1 GiB", Facts{CPUs: 4, AvailableMemoryBytes: 16 << 30, MemoryLimitBytes: 1 << 30}, 4, 1, 2, 704 * mib},
		{"a limit for 3 processes", Facts{CPUs: 4, AvailableMemoryBytes: 16 << 30, MemoryLimitBytes: 600 * mib}, 3, 1, 2, 386 * mib},
		{"a limit that is used up", Facts{CPUs: 4, AvailableMemoryBytes: 16 << 30, MemoryLimitBytes: 256 * mib, MemoryUsageBytes: 300 * mib}, 1, 1, 4, 0},
		{"a limit above what the host has left", Facts{CPUs: 2, AvailableMemoryBytes: 1 << 30, MemoryLimitBytes: 8 << 30}, 2, 2, 2, 704 * mib},
		{"nothing known", Facts{}, 1, 1, 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := test.facts.Limits()
			if l.ParallelDatabases != test.databases || l.Jobs != test.jobs || l.CompressionProcs != test.zip {
				t.Errorf("databases, jobs, compression: got %d, %d, %d, want %d, %d, %d",
					l.ParallelDatabases, l.Jobs, l.CompressionProcs, test.databases, test.jobs, test.zip)
			}
			if l.MemoryBudgetBytes != test.budget {
				t.Errorf("budget: got %d, want %d", l.MemoryBudgetBytes, test.budget)
			}
			if held := int64(l.ParallelDatabases*l.CompressionProcs) * blockMemoryBytes; held > ownMemoryBytes/2 {
				t.Errorf("compression holds %d bytes, want at most half of %d", held, ownMemoryBytes)
			}
			if len(l.Why) < 2 {
				t.Errorf("why: got %q, want the reasons", l.Why)
			}
		})
	}
}

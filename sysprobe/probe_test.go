package sysprobe

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProbeReadsWhatControlGroupsAllow(t *testing.T) {
	v1 := bareHost().with(files{
		"/proc/self/mountinfo":                            v1Mounts,
		"/proc/self/cgroup":                               "4:memory:/a/b\n3:cpuset:/\n1:cpu,cpuacct:/a\n0::/",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes":     unlimitedV1,
		"/sys/fs/cgroup/memory/memory.usage_in_bytes":     "900",
		"/sys/fs/cgroup/memory/a/memory.limit_in_bytes":   unlimitedV1,
		"/sys/fs/cgroup/memory/a/memory.usage_in_bytes":   "700",
		"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": unlimitedV1,
		"/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes": "500",
		"/sys/fs/cgroup/memory/a/b/memory.stat":           "cache 100\nhierarchical_memory_limit " + unlimitedV1 + "\ntotal_inactive_file 100",
		"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us":   "-1",
		"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us":  "100000",
	})
	v2 := bareHost().with(files{
		"/proc/self/mountinfo":                                        "" + v2Mounts,
		"/proc/self/cgroup":                                           "0::/system.slice/dbbackup.service",
		"/sys/fs/cgroup/cpuset.cpus.effective":                        "0-7",
		"/sys/fs/cgroup/system.slice/memory.max":                      "max",
		"/sys/fs/cgroup/system.slice/memory.current":                  "700",
		"/sys/fs/cgroup/system.slice/cpu.max":                         "max 100000",
		"/sys/fs/cgroup/system.slice/dbbackup.service/memory.max":     "max",
		"/sys/fs/cgroup/system.slice/dbbackup.service/memory.current": "500",
		"/sys/fs/cgroup/system.slice/dbbackup.service/memory.stat":    "anon 1\ninactive_file 200",
		"/sys/fs/cgroup/system.slice/dbbackup.service/cpu.max":        "max 100000",
	})
	tests := []struct {
		name         string
		host         files
		limit, usage int64
		cpus         int
	}{
		{"no cgroups", bareHost(), 0, 0, 8},
		{"v1 without limits", v1, 0, 400, 8},
		{"v1 own limit", v1.with(files{
			"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "268435456",
			"/sys/fs/cgroup/memory/a/b/memory.stat":           "hierarchical_memory_limit 268435456\ntotal_inactive_file 100",
		}), 268435456, 400, 8},
		{"v1 limit of the group above, which its usage counts for", v1.with(files{
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "268435456",
			"/sys/fs/cgroup/memory/a/b/memory.stat":         "hierarchical_memory_limit 268435456\ntotal_inactive_file 100",
		}), 268435456, 700, 8},
		{"v1 limit that only the hierarchy tells, as in a container", v1.with(files{
			"/sys/fs/cgroup/memory/memory.stat":     "hierarchical_memory_limit 268435456",
			"/sys/fs/cgroup/memory/a/b/memory.stat": "hierarchical_memory_limit 268435456",
		}), 268435456, 900, 8},
		{"v1 quota of 2.5 processors", v1.with(files{
			"/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
		}), 0, 400, 3},
		{"v1 cpuset", v1.with(files{"/sys/fs/cgroup/cpuset/cpuset.cpus": "0-1,4"}), 0, 400, 3},
		{"v2 without limits", v2, 0, 300, 8},
		{"v2 own limit", v2.with(files{
			"/sys/fs/cgroup/system.slice/dbbackup.service/memory.max": "536870912",
		}), 536870912, 300, 8},
		{"v2 nested, the upper is smaller", v2.with(files{
			"/sys/fs/cgroup/system.slice/memory.max":                  "134217728",
			"/sys/fs/cgroup/system.slice/dbbackup.service/memory.max": "536870912",
		}), 134217728, 700, 8},
		{"v2 nested, the lower is smaller", v2.with(files{
			"/sys/fs/cgroup/system.slice/memory.max":                  "536870912",
			"/sys/fs/cgroup/system.slice/dbbackup.service/memory.max": "134217728",
		}), 134217728, 300, 8},
		{"v2 quota of half a processor", v2.with(files{
			"/sys/fs/cgroup/system.slice/dbbackup.service/cpu.max": "50000 100000",
		}), 0, 300, 1},
		{"v2 quota above", v2.with(files{"/sys/fs/cgroup/system.slice/cpu.max": "400000 100000"}), 0, 300, 4},
		{"v2 cpuset", v2.with(files{
			"/sys/fs/cgroup/system.slice/dbbackup.service/cpuset.cpus.effective": "2,4-5",
		}), 0, 300, 3},
		{"affinity", bareHost().with(files{"/proc/self/status": "Cpus_allowed_list:\t3"}), 0, 0, 1},
		{"hybrid: memory in v1, the rest unified", v1.with(files{
			"/proc/self/mountinfo":                          v1Mounts + "\n36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
			"/proc/self/cgroup":                             "4:memory:/a\n0::/u",
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes": "268435456",
			"/sys/fs/cgroup/unified/u/memory.max":           "1",
			"/sys/fs/cgroup/unified/u/cpu.max":              "100000 100000",
		}), 268435456, 700, 1},
		{"hybrid: a unified hierarchy with the memory controller", bareHost().with(files{
			"/proc/self/mountinfo":                         v1Mounts + "\n36 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
			"/proc/self/cgroup":                            "1:cpu,cpuacct:/\n0::/u",
			"/sys/fs/cgroup/unified/u/memory.max":          "268435456",
			"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  "200000",
			"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
		}), 268435456, 0, 2},
		{"container whose mount begins at its own group", v2.with(files{
			"/proc/self/mountinfo":          strings.Replace(v2Mounts, "0:28 / ", "0:28 /docker/abc ", 1),
			"/proc/self/cgroup":             "0::/docker/abc/job",
			"/sys/fs/cgroup/job/memory.max": "max",
			"/sys/fs/cgroup/memory.max":     "268435456",
			"/sys/fs/cgroup/memory.current": "50",
		}), 268435456, 50, 8},
		{"group outside the namespace", v2.with(files{
			"/proc/self/cgroup":             "0::/../beside",
			"/sys/fs/cgroup/memory.max":     "268435456",
			"/sys/fs/cgroup/memory.current": "60",
		}), 268435456, 60, 8},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, err := Probe(t.Context(), Options{Root: test.host.write(t)})
			if err != nil {
				t.Fatal(err)
			}
			if f.MemoryLimitBytes != test.limit || f.MemoryUsageBytes != test.usage {
				t.Errorf("memory limit, usage: got %d, %d, want %d, %d", f.MemoryLimitBytes, f.MemoryUsageBytes, test.limit, test.usage)
			}
			if f.CPUs != test.cpus {
				t.Errorf("CPUs: got %d, want %d", f.CPUs, test.cpus)
			}
		})
	}
}

func TestProbeReadsAHost(t *testing.T) {
	root := bareHost().with(files{
		"/proc/self/mountinfo": `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 8:2 / /srv/my\040data rw,noatime - ext4 /dev/sdb1 rw,data=writeback
24 22 0:40 / /mnt rw - tmpfs tmpfs rw
25 22 0:41 / /mnt rw,nosuid - nfs4 files:/backups rw,vers=4.2,soft
26 22 0:42 / /empty rw - fuse.sshfs  rw`,
		"/srv/my data/pg/PG_VERSION": "15",
		"/mnt/x":                     "",
		"/proc/self/limits": "Limit                     Soft Limit           Hard Limit           Units\n" +
			"Max processes             unlimited            96365                processes\n" +
			"Max open files            1024                 524288               files",
		"/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
		"/sys/block/sda/queue/scheduler":              "[none] mq-deadline",
		"/sys/block/sda/queue/rotational":             "1",
		"/sys/block/sda/queue/add_random":             "1",
		"/sys/block/sda/queue/read_ahead_kb":          "128",
		"/sys/block/nvme0n1/queue/rotational":         "0",
		"/sys/block/loop0/queue/scheduler":            "[none]",
		"/sys/block/dm-0/queue/scheduler":             "none",
		"/etc/security/limits.conf":                   "# postgres soft nofile 1\n*  soft nofile 4096\npostgres hard nofile 8192 # ours\nother - nproc 1",
		"/etc/security/limits.d/20-a.conf":            "@postgres - nproc 100\npostgres hard nofile unlimited",
		"/etc/security/limits.d/30-b.conf":            "* - nproc 7\n* hard nofile 9",
		"/etc/security/limits.d/ignored.txt":          "postgres - nproc 3",
	}).write(t)
	f, err := Probe(t.Context(), Options{
		Root: root, StorePath: "/mnt/not/yet", DataDirectories: []string{"/srv/my data/pg", "/var/lib"}, PostgresUser: "postgres",
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.Store.TotalBytes <= 0 || f.Data[0].FreeBytes <= 0 {
		t.Errorf("sizes of %+v and %+v: want more than 0", f.Store, f.Data[0])
	}
	// Sizes are those of the machine that the test runs on.
	for _, fs := range append([]*Filesystem{f.Store}, &f.Data[0], &f.Data[1]) {
		fs.FreeBytes, fs.TotalBytes, fs.FreeInodes = 0, 0, 0
	}
	want := Facts{
		CPUs: 8, CPUModel: "Example CPU @ 2.00GHz", Kernel: "6.1.0-18-amd64",
		HostMemoryBytes: 16 << 30, AvailableMemoryBytes: 8 << 30, SwapBytes: 2 << 30, SwapFreeBytes: 1 << 30,
		Store: &Filesystem{
			Path: "/mnt/not/yet", Mountpoint: "/mnt", Type: "nfs4", Device: "files:/backups",
			Options: []string{"nosuid", "rw", "soft", "vers=4.2"}, Network: true,
		},
		Data: []Filesystem{
			{Path: "/srv/my data/pg", Mountpoint: "/srv/my data", Type: "ext4", Device: "/dev/sdb1", Options: []string{"data=writeback", "noatime", "rw"}},
			{Path: "/var/lib", Mountpoint: "/", Type: "ext4", Device: "/dev/sda1", Options: []string{"errors=remount-ro", "relatime", "rw"}},
		},
		BlockDevices: []BlockDevice{
			{Name: "nvme0n1", AddRandom: Unknown, ReadAheadKB: Unknown},
			{Name: "sda", Rotational: true, Scheduler: "none", AvailableSchedulers: []string{"none", "mq-deadline"}, AddRandom: 1, ReadAheadKB: 128},
		},
		Settings:     Settings{0, 50, 60, 20, 10, "madvise"},
		PostgresUser: "postgres",
		Process:      ResourceLimits{OpenFilesSoft: 1024, OpenFilesHard: 524288, ProcessesSoft: Unlimited, ProcessesHard: 96365},
		Postgres:     ResourceLimits{OpenFilesSoft: 4096, OpenFilesHard: Unlimited, ProcessesSoft: 100, ProcessesHard: 100},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
}

func TestProbeFailsWhereItWouldGuess(t *testing.T) {
	without := func(name string) files {
		f := bareHost()
		delete(f, name)
		return f
	}
	tests := []struct {
		name string
		host files
		want string
	}{
		{"no meminfo", without("/proc/meminfo"), "no MemTotal"},
		{"no mountinfo", without("/proc/self/mountinfo"), "read mounts"},
		{"broken mountinfo", bareHost().with(files{"/proc/self/mountinfo": "22 1 8:1 / /"}), "is no mount"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Probe(t.Context(), Options{Root: test.host.write(t)})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

// What is not told is unknown, and nothing is advised about it.
func TestUnknownFactsMakeNoAdvice(t *testing.T) {
	host := bareHost()
	for name := range host {
		if strings.HasPrefix(name, "/proc/sys/") {
			delete(host, name)
		}
	}
	f, err := Probe(t.Context(), Options{Root: host.write(t)})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Settings{Unknown, Unknown, Unknown, Unknown, Unknown, ""}); f.Settings != want {
		t.Errorf("settings: got %+v, want %+v", f.Settings, want)
	}
	if advice := Advise(f); len(advice) != 0 {
		t.Errorf("advice: got %+v, want none", advice)
	}
}

func TestProbeRefusesALinkOutOfTheTree(t *testing.T) {
	root := bareHost().write(t)
	if err := os.Symlink(t.TempDir(), filepath.Join(root, "store")); err != nil {
		t.Fatal(err)
	}
	_, err := Probe(t.Context(), Options{Root: root, StorePath: "/store"})
	if err == nil || !strings.Contains(err.Error(), "/store leads outside") {
		t.Errorf("got error %v, want that the link leads outside", err)
	}
}

func TestProbeEndsWithTheStoreOfARealLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	f, err := Probe(context.Background(), Options{StorePath: link})
	if err != nil {
		t.Fatal(err)
	}
	if f.Store.Mountpoint != "/proc" || f.Store.Type != "proc" || f.Store.FreeInodes != Unknown {
		t.Errorf("got %+v, want what /proc is", *f.Store)
	}
	if slices.Contains(f.Store.Options, "") {
		t.Errorf("options %q hold an empty one", f.Store.Options)
	}
}

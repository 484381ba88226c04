package sysprobe

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// files is a host as a tree: paths and contents.
type files map[string]string

// with returns the tree with more files, or other ones.
func (f files) with(more files) files {
	all := maps.Clone(f)
	maps.Copy(all, more)
	return all
}

// write makes the tree in a folder of its own and returns it.
func (f files) write(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range f {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// bareHost is a host of eight processors and 16 GiB, without cgroups.
func bareHost() files {
	return files{
		"/proc/meminfo":                       "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\nSwapTotal:       2097152 kB\nSwapFree:        1048576 kB",
		"/proc/cpuinfo":                       "processor\t: 0\nmodel name\t: Example CPU @ 2.00GHz\nflags\t\t: fpu",
		"/proc/self/status":                   "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7",
		"/sys/devices/system/cpu/online":      "0-7",
		"/proc/sys/kernel/osrelease":          "6.1.0-18-amd64",
		"/proc/self/mountinfo":                "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro",
		"/proc/self/cgroup":                   "0::/",
		"/proc/sys/vm/overcommit_memory":      "0",
		"/proc/sys/vm/overcommit_ratio":       "50",
		"/proc/sys/vm/swappiness":             "60",
		"/proc/sys/vm/dirty_ratio":            "20",
		"/proc/sys/vm/dirty_background_ratio": "10",
	}
}

const (
	unlimitedV1 = "9223372036854771712"

	v1Mounts = `22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 22 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory`

	v2Mounts = `22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 22 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate`
)

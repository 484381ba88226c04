package sysprobe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideGroup names the cgroup folder that a re-executed test binary is to
// enter before it probes.
const insideGroup = "SYSPROBE_TEST_ENTER_CGROUP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(insideGroup); dir != "" {
		if err := probeInside(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func probeInside(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	f, err := Probe(context.Background(), Options{})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

func TestProbeOfThisMachine(t *testing.T) {
	store := t.TempDir()
	f, err := Probe(t.Context(), Options{StorePath: store, DataDirectories: []string{"/"}})
	if err != nil {
		t.Fatal(err)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	// getconf counts pages, sysinfo units: neither reads /proc/meminfo.
	if pages := getconf(t, "_PHYS_PAGES") * int64(os.Getpagesize()); f.HostMemoryBytes != pages {
		t.Errorf("host memory: got %d, getconf says %d", f.HostMemoryBytes, pages)
	}
	if want := int64(info.Totalswap) * int64(info.Unit); f.SwapBytes != want {
		t.Errorf("swap: got %d, sysinfo says %d", f.SwapBytes, want)
	}
	if f.AvailableMemoryBytes <= 0 || f.AvailableMemoryBytes > f.HostMemoryBytes {
		t.Errorf("available memory: got %d of %d", f.AvailableMemoryBytes, f.HostMemoryBytes)
	}
	if online := int(getconf(t, "_NPROCESSORS_ONLN")); f.CPUs < 1 || f.CPUs > online {
		t.Errorf("CPUs: got %d, want 1 to %d", f.CPUs, online)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if want := unix.ByteSliceToString(name.Release[:]); f.Kernel != want {
		t.Errorf("kernel: got %q, uname says %q", f.Kernel, want)
	}
	checkFilesystem(t, *f.Store, store)
	checkFilesystem(t, f.Data[0], "/")
	var nofile unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &nofile); err != nil {
		t.Fatal(err)
	}
	if uint64(f.Process.OpenFilesSoft) != nofile.Cur && nofile.Cur != unix.RLIM_INFINITY {
		t.Errorf("nofile: got %d, getrlimit says %d", f.Process.OpenFilesSoft, nofile.Cur)
	}
	if out, err := exec.Command("sysctl", "-n", "vm.swappiness").Output(); err == nil {
		if got := strconv.Itoa(f.Settings.Swappiness); got != strings.TrimSpace(string(out)) {
			t.Errorf("vm.swappiness: got %s, sysctl says %s", got, out)
		}
	}
}

func checkFilesystem(t *testing.T, got Filesystem, path string) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	if want := int64(st.Blocks) * st.Bsize; got.TotalBytes != want {
		t.Errorf("size of %s: got %d, statfs says %d", path, got.TotalBytes, want)
	}
	out, err := exec.Command("findmnt", "-n", "-o", "TARGET,FSTYPE", "-T", path).Output()
	if err != nil {
		t.Logf("findmnt cannot be asked: %v", err)
		return
	}
	if want := strings.Fields(string(out)); got.Mountpoint != want[0] || got.Type != want[1] {
		t.Errorf("%s is on %s (%s), findmnt says %s (%s)", path, got.Mountpoint, got.Type, want[0], want[1])
	}
}

func getconf(t *testing.T, name string) int64 {
	t.Helper()
	out, err := exec.Command("getconf", name).Output()
	if err != nil {
		t.Fatalf("getconf %s: %v", name, err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A process inside a group of 256 MiB sees that limit, and sizes its run by it.
func TestProbeInsideARealMemoryGroup(t *testing.T) {
	const limit = 256 << 20
	dir := memoryGroup(t, limit)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), insideGroup+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("probe inside %s: %v\n%s", dir, err, stderr.String())
	}
	var f Facts
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatal(err)
	}
	if f.MemoryLimitBytes != limit {
		t.Errorf("memory limit: got %d, want %d", f.MemoryLimitBytes, limit)
	}
	if f.MemoryUsageBytes <= 0 || f.MemoryUsageBytes >= limit {
		t.Errorf("memory usage: got %d, want some of %d", f.MemoryUsageBytes, limit)
	}
	if f.HostMemoryBytes <= limit {
		t.Fatalf("host memory: got %d, want the host's and not the group's", f.HostMemoryBytes)
	}
	if budget := f.Limits().MemoryBudgetBytes; budget <= 0 || budget >= limit {
		t.Errorf("memory budget: got %d, want less than %d", budget, limit)
	}
}

// memoryGroup makes a cgroup with a memory limit below this process's own, so
// that the process which enters it stays under every limit it is under now.
func memoryGroup(t *testing.T, limit int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a cgroup needs root")
	}
	mounts, err := readMounts(tree{})
	if err != nil {
		t.Fatal(err)
	}
	groups := readCgroups(tree{}, mounts)
	parent, file := groups.memoryV1.dir, "memory.limit_in_bytes"
	if parent == "" {
		parent, file = groups.memoryV2.dir, "memory.max"
	}
	if parent == "" {
		t.Skip("no cgroup hierarchy is mounted")
	}
	dir := filepath.Join(parent, fmt.Sprintf("sysprobe-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		t.Skipf("cgroups are read-only here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove the test's cgroup: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0); errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skipf("the memory controller is not delegated to %s: %v", parent, err)
	} else if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSelfCountsWorkAndMemory(t *testing.T) {
	cpu, peak := Self()
	if peak <= 0 {
		t.Fatalf("peak memory: got %d, want more than 0", peak)
	}
	const more = 64 << 20
	block := make([]byte, more)
	for i := range block { // touch every page, and use the processor
		block[i] = byte(i)
	}
	cpuAfter, peakAfter := Self()
	if cpuAfter <= cpu {
		t.Errorf("CPU time: got %v after work, was %v", cpuAfter, cpu)
	}
	if peakAfter < more || peakAfter < peak {
		t.Errorf("peak memory: got %d after touching %d, was %d", peakAfter, more, peak)
	}
	if cpuAfter > time.Hour {
		t.Errorf("CPU time: got %v, want seconds", cpuAfter)
	}
	_ = block[more-1]
}

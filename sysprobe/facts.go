package sysprobe

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/host"
	"github.com/shirou/gopsutil/v3/mem"
)

// Unknown stands for a number that the host does not tell.
const Unknown = -1

// Options says what to look at.
type Options struct {
	// StorePath is where backup sets are kept; it need not exist yet. Empty
	// when the store is not a folder of this host.
	StorePath string
	// DataDirectories are where a server on this host keeps its data; none
	// when the server is elsewhere.
	DataDirectories []string
	// PostgresUser is the system user whose configured limits are wanted.
	// Empty: they stay unknown.
	PostgresUser string
	// Root is prefixed to every path that is read. Empty for the real host.
	Root string
}

// Facts is what Probe found. Sizes are in bytes.
type Facts struct {
	// CPUs is how many processors this process can keep busy: the smallest of
	// its affinity, its cpusets and its cgroups' quotas (rounded up). At least 1.
	CPUs     int    `json:"cpus"`
	CPUModel string `json:"cpu_model,omitempty"`

	HostMemoryBytes      int64 `json:"host_memory_bytes"`
	AvailableMemoryBytes int64 `json:"available_memory_bytes"` // the kernel's MemAvailable, of the whole host
	// MemoryLimitBytes is the smallest memory limit of this process's cgroup
	// and of those above it. 0: none.
	MemoryLimitBytes int64 `json:"memory_limit_bytes"`
	// MemoryUsageBytes is what the cgroup with that limit has in use, without
	// page cache that can be dropped. Without a limit, this process's cgroup.
	MemoryUsageBytes int64 `json:"memory_usage_bytes"`
	SwapBytes        int64 `json:"swap_bytes"`
	SwapFreeBytes    int64 `json:"swap_free_bytes"`

	Kernel string `json:"kernel,omitempty"` // release, e.g. 6.1.0-18-amd64
	// Virtualisation is what the host is a guest of, e.g. kvm, docker. Empty:
	// none known. Never set when Options.Root is: it is found once per process.
	Virtualisation string `json:"virtualisation,omitempty"`

	Store        *Filesystem   `json:"store,omitempty"` // nil without Options.StorePath
	Data         []Filesystem  `json:"data,omitempty"`  // one per data directory, in their order
	BlockDevices []BlockDevice `json:"block_devices,omitempty"`
	Settings     Settings      `json:"settings"`

	PostgresUser string         `json:"postgres_user,omitempty"`
	Process      ResourceLimits `json:"process_limits"`  // of this process
	Postgres     ResourceLimits `json:"postgres_limits"` // as configured for PostgresUser
}

// Probe reads the facts. It fails when the host's memory, its mounts, or a
// file system that was asked for cannot be read.
func Probe(ctx context.Context, opts Options) (Facts, error) {
	t := tree{root: opts.Root}
	f := Facts{
		CPUModel:     cpuModel(t),
		Kernel:       t.text("/proc/sys/kernel/osrelease"),
		BlockDevices: blockDevices(t),
		Settings:     settings(t),
		PostgresUser: opts.PostgresUser,
		Process:      processLimits(t),
		Postgres:     configuredLimits(t, opts.PostgresUser),
	}
	mounts, err := readMounts(t)
	if err != nil {
		return Facts{}, err
	}
	groups := readCgroups(t, mounts)
	f.CPUs = usableCPUs(t, groups)
	f.MemoryLimitBytes, f.MemoryUsageBytes = groups.memory(t)
	if err := f.readMemory(ctx, t); err != nil {
		return Facts{}, err
	}
	if err := f.readFilesystems(ctx, t, mounts, opts); err != nil {
		return Facts{}, err
	}
	if opts.Root == "" {
		f.Virtualisation = guestOf(ctx, t)
	}
	return f, nil
}

func (f *Facts) readMemory(ctx context.Context, t tree) error {
	vm, err := mem.VirtualMemoryWithContext(t.gopsutil(ctx))
	if err != nil {
		return fmt.Errorf("read host memory: %w", err)
	}
	// The library takes an unreadable meminfo for a host without memory.
	if vm.Total == 0 {
		return fmt.Errorf("read host memory: no MemTotal in %s", t.path("/proc/meminfo"))
	}
	f.HostMemoryBytes, f.AvailableMemoryBytes = int64(vm.Total), int64(vm.Available)
	f.SwapBytes, f.SwapFreeBytes = int64(vm.SwapTotal), int64(vm.SwapFree)
	return nil
}

func (f *Facts) readFilesystems(ctx context.Context, t tree, mounts []mount, opts Options) error {
	if opts.StorePath != "" {
		store, err := filesystem(ctx, t, mounts, opts.StorePath)
		if err != nil {
			return err
		}
		f.Store = &store
	}
	for _, dir := range opts.DataDirectories {
		data, err := filesystem(ctx, t, mounts, dir)
		if err != nil {
			return err
		}
		f.Data = append(f.Data, data)
	}
	return nil
}

// guestOf names what runs this host as a guest.
func guestOf(ctx context.Context, t tree) string {
	system, role, err := host.VirtualizationWithContext(t.gopsutil(ctx))
	if err != nil || role != "guest" {
		return ""
	}
	return system
}

// gopsutil returns a context that makes the library read below the tree's
// root, and keeps it from reading HOST_PROC and the like from the environment.
func (t tree) gopsutil(ctx context.Context) context.Context {
	return context.WithValue(ctx, common.EnvKey, common.EnvMap{
		common.HostProcEnvKey: t.path("/proc"),
		common.HostSysEnvKey:  t.path("/sys"),
		common.HostEtcEnvKey:  t.path("/etc"),
		common.HostVarEnvKey:  t.path("/var"),
		common.HostRunEnvKey:  t.path("/run"),
		common.HostDevEnvKey:  t.path("/dev"),
		common.HostRootEnvKey: filepath.Clean(t.path("/")),
	})
}

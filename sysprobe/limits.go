package sysprobe

import "fmt"

const (
	mib = int64(1) << 20

	// ownMemoryBytes is what dbbackup itself may take, whatever it backs up.
	ownMemoryBytes = 64 * mib
	// blockMemoryBytes is what one parallel compressor holds: a block of input
	// of 1 MB, its output, and the tables of the deflate algorithm.
	blockMemoryBytes = 4 * mib
	// childMemoryBytes is what one pg_dump or pg_restore process is counted
	// with: some tens of MB for ten thousand tables, and room for wide rows.
	childMemoryBytes = 128 * mib

	mostDatabases = 4 // beyond it the server, not the number of readers, is the limit
	mostJobs      = 8
)

// Limits is how much a run should take of this host. Every number is at
// least 1, except MemoryBudgetBytes, which may be 0.
type Limits struct {
	ParallelDatabases int `json:"parallel_databases"`
	Jobs              int `json:"jobs"`              // processes per database, where its format has such
	Readers           int `json:"readers"`           // sessions of the native engine, over all databases
	CompressionProcs  int `json:"compression_procs"` // compressing goroutines per database
	// MemoryBudgetBytes is what all child processes may take together.
	MemoryBudgetBytes int64    `json:"memory_budget_bytes"`
	Why               []string `json:"why"` // one sentence per decision, for the log
}

// Limits sizes a run. Compression is kept so small that this process stays
// below 64 MB; the children get three quarters of the memory that is free now,
// less that.
func (f Facts) Limits() Limits {
	var l Limits
	cpus := max(f.CPUs, 1)
	l.ParallelDatabases = min(cpus, mostDatabases)
	// Twice as many processes as CPUs: half of each one's time is the server's.
	l.Jobs = min(cpus, 2*cpus/l.ParallelDatabases, mostJobs)
	l.Readers = min(cpus, mostJobs)
	l.because("%d usable CPUs: %d databases at a time, %d jobs each", cpus, l.ParallelDatabases, l.Jobs)

	available, source := f.availableMemory()
	l.MemoryBudgetBytes = max(available/4*3-ownMemoryBytes, 0)
	l.because("%d MiB free of %s: %d MiB for child processes", available/mib, source, l.MemoryBudgetBytes/mib)

	l.fitMemory()
	blocks := int(ownMemoryBytes / 2 / blockMemoryBytes)
	l.CompressionProcs = max(min(cpus, blocks/l.ParallelDatabases), 1)
	return l
}

// availableMemory is what can still be had, and from where: the host, or the
// cgroup when its limit is nearer.
func (f Facts) availableMemory() (int64, string) {
	if f.MemoryLimitBytes > 0 {
		room := max(f.MemoryLimitBytes-f.MemoryUsageBytes, 0)
		if room < f.AvailableMemoryBytes {
			return room, fmt.Sprintf("the cgroup's limit of %d MiB", f.MemoryLimitBytes/mib)
		}
	}
	return f.AvailableMemoryBytes, fmt.Sprintf("the host's %d MiB", f.HostMemoryBytes/mib)
}

// MaintenanceMemory is what each of several sessions that build indexes on this
// host may take, in bytes: half of what is free, 1 GiB at most; 0 when that is
// too little to be worth a setting of its own.
func (f Facts) MaintenanceMemory(sessions int) int64 {
	const least, most = 64 * mib, 1024 * mib
	available, _ := f.availableMemory()
	each := min(available/2/int64(max(sessions, 1)), most)
	if each < least {
		return 0
	}
	return each
}

// fitMemory takes processes away until the rest fits the budget: jobs first,
// since several databases at a time help every format and jobs only some.
func (l *Limits) fitMemory() {
	most := max(l.MemoryBudgetBytes/childMemoryBytes, 1)
	wanted := l.ParallelDatabases * l.Jobs
	for int64(l.ParallelDatabases*l.Jobs) > most && l.Jobs > 1 {
		l.Jobs--
	}
	for int64(l.ParallelDatabases*l.Jobs) > most && l.ParallelDatabases > 1 {
		l.ParallelDatabases--
	}
	if l.ParallelDatabases*l.Jobs < wanted {
		l.because("memory holds %d processes of %d MiB: %d databases at a time, %d jobs each",
			most, childMemoryBytes/mib, l.ParallelDatabases, l.Jobs)
	}
	if l.MemoryBudgetBytes < childMemoryBytes {
		l.because("less than %d MiB for a child process: a wide row or many tables may not fit", childMemoryBytes/mib)
	}
}

func (l *Limits) because(format string, args ...any) {
	l.Why = append(l.Why, fmt.Sprintf(format, args...))
}

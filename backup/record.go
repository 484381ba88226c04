package backup

import (
	"errors"
	"slices"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/fault"
	"dbbackup/sysprobe"
)

// record puts the outcomes into the manifest and returns what failed, as one
// error. It is of a kind of its own only when nothing at all was captured and
// all failures are of that kind.
func (r *run) record(globalsErr error, outcomes []Outcome) error {
	var failures []error
	if globalsErr != nil {
		failures = append(failures, globalsErr)
		r.manifest.Failures = append(r.manifest.Failures, backupset.Failure{Error: globalsErr.Error()})
	}
	for _, o := range outcomes {
		if o.Err != nil {
			failures = append(failures, o.Err)
			r.manifest.Failures = append(r.manifest.Failures, backupset.Failure{Database: o.Name, Error: o.Err.Error()})
			continue
		}
		r.manifest.Databases = append(r.manifest.Databases, *o.Captured)
	}
	r.manifest.Omissions = r.omissions()
	if len(failures) == 0 {
		return nil
	}
	joined := errors.Join(failures...)
	if len(r.manifest.Databases) == 0 && sameKind(failures) {
		return joined
	}
	failure := &fault.Error{Kind: fault.Failed, Err: &partial{joined}}
	hints := fault.Hints(joined)
	for _, hint := range slices.Backward(hints) { // the outermost is printed first
		failure = &fault.Error{Kind: fault.Failed, Hint: hint, Err: failure}
	}
	return failure
}

// partial hides the kinds of single failures: the run as a whole just failed. Their
// hints are still good.
type partial struct{ err error }

func (p *partial) Error() string { return p.err.Error() }

func sameKind(errs []error) bool {
	for _, err := range errs {
		if fault.KindOf(err) != fault.KindOf(errs[0]) {
			return false
		}
	}
	return true
}

func databaseResources(c pgdump.Captured, took time.Duration) backupset.Resources {
	u := c.Usage
	return backupset.Resources{
		Seconds: took.Seconds(), ChildCPUSeconds: (u.UserCPU + u.SystemCPU).Seconds(),
		ChildPeakRSSBytes: u.PeakRSSBytes, DiskReadBytes: u.BlockReadBytes, DiskWriteBytes: u.BlockWriteBytes,
		StoredBytesPerSec: perSecond(c.StoredBytes, took),
	}
}

// resources sums up the run.
func (r *run) resources() backupset.Resources {
	cpu, peak := sysprobe.Self()
	took := r.manifest.Finished.Sub(r.manifest.Started)
	total := backupset.Resources{Seconds: took.Seconds(), CPUSeconds: cpu.Seconds(), PeakRSSBytes: peak}
	stored := int64(0)
	for _, d := range r.manifest.Databases {
		total.ChildCPUSeconds += d.Resources.ChildCPUSeconds
		total.ChildPeakRSSBytes = max(total.ChildPeakRSSBytes, d.Resources.ChildPeakRSSBytes)
		total.DiskReadBytes += d.Resources.DiskReadBytes
		total.DiskWriteBytes += d.Resources.DiskWriteBytes
		stored += d.StoredBytes
	}
	total.StoredBytesPerSec = perSecond(stored, took)
	return total
}

func perSecond(n int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Seconds()
}

package backup

import (
	"context"
	"slices"

	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// Without a former set to learn from, a dump is guessed to take this share of
// its tables: ordinary rows compress to a third or less, what is compressed
// already not at all.
const guessedRatio = 0.5

// inodesPerSet is what a set takes beside its dumps; a directory dump takes
// one more for each table.
const inodesPerSet = 16

// estimate is how large a set will be.
type estimate struct {
	bytes   int64
	files   int64
	guessed bool // for at least one database there was no former set
}

// checkSpace compares the estimate with what is free, before anything is
// written. A guess only warns, unless a tenth of it would not fit either.
func (r *run) checkSpace(ctx context.Context) error {
	need := r.estimate(ctx)
	if !r.o.SpaceCheck {
		return nil
	}
	roomy, ok := r.o.Store.(store.Roomy)
	if !ok {
		return nil // a bucket takes what it is paid for
	}
	free, inodes, err := roomy.Free()
	if err != nil {
		return err
	}
	const hint = "free some space, or use another --store; --no-space-check skips this check"
	wanted := need.bytes
	if need.guessed {
		wanted /= 10
	}
	if uint64(wanted) > free { //nolint:gosec // a sum of sizes is not negative
		return fault.New(fault.Precondition, hint, "the set needs about %s, and the store has %s free",
			bytesize.Format(need.bytes), bytesize.Format(int64(free))) //nolint:gosec // far below 2^63
	}
	if uint64(need.files) > inodes { //nolint:gosec // a count
		return fault.New(fault.Precondition, hint, "the set needs about %d files, and the store has room for %d", need.files, inodes)
	}
	if uint64(need.bytes) > free { //nolint:gosec // as above
		r.o.Report.Warn("the store may be too small for this set", report.F("estimate", bytesize.Format(need.bytes)),
			report.F("free", bytesize.Format(int64(free)))) //nolint:gosec // far below 2^63
	}
	return nil
}

func (r *run) estimate(ctx context.Context) estimate {
	former := r.formerRatios(ctx)
	need := estimate{files: inodesPerSet}
	for i := range r.plans {
		p := &r.plans[i]
		if p.problem != nil {
			continue
		}
		need.files += 3
		if p.mode == backupset.Directory {
			need.files += int64(p.tables)
		}
		if known, ok := former[p.database.Name]; ok {
			p.expected = int64(known * float64(p.database.Bytes))
		} else {
			p.expected = int64(guessedRatio * float64(p.readBytes))
			need.guessed = true
		}
		if r.o.Incremental || r.o.Resume != "" {
			need.guessed = true // how much of it is there already is for the proof to say
		}
		need.bytes += p.expected
	}
	return need
}

// learnFrom is how many of the newest sets are looked at for former ratios.
const learnFrom = 10

// formerRatios are stored bytes over database bytes, from the newest sets.
func (r *run) formerRatios(ctx context.Context) map[string]float64 {
	entries := r.stock.complete()
	ratios := map[string]float64{}
	for _, e := range slices.Backward(entries[:min(learnFrom, len(entries))]) { // the newest wins
		set, err := backupset.Open(ctx, r.o.Store, e.ID)
		if err != nil {
			continue // list says what is wrong with it
		}
		for _, d := range set.Manifest().Databases {
			if d.Selection == nil && d.CompressionRatio > 0 {
				ratios[d.Name] = d.CompressionRatio
			}
		}
	}
	return ratios
}

// free asks the store what it can still take; nil where it does not know.
func (r *run) free() func() (bytes, inodes uint64, err error) {
	if roomy, ok := r.o.Store.(store.Roomy); ok {
		return roomy.Free
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

// contest is one mode of dbbackup and what a user would take instead.
type contest struct {
	mode    string
	rival   string // as one would type it
	runs    int
	maxTime float64 // of the rival's
	maxSize float64 // of the rival's; 0: no target
	archive []string
}

// speed is how a contest went, in turns.
type speed struct {
	contest
	ours, theirs []cost
}

// contests are the pairs to measure. The rivals get the same level and jobs.
func (b *bench) contests() []contest {
	return []contest{
		{mode: "plain", rival: "pg_dump mixed | pigz -6 > file", runs: b.plainRuns, maxTime: 0.60, maxSize: 1.02},
		{
			mode: "custom", rival: "pg_dump -Fc -Z6 -f file mixed", runs: b.archiveRuns, maxTime: 1.03,
			archive: []string{"-Fc", "-Z6"},
		},
		{
			mode: "directory", rival: "pg_dump -Fd -j2 -Z6 -f dir mixed", runs: b.archiveRuns, maxTime: 1.03,
			archive: []string{"-Fd", "-j2", "-Z6"},
		},
	}
}

func (b *bench) measureSpeed(ctx context.Context) ([]speed, error) {
	var all []speed
	for _, c := range b.contests() {
		s := speed{contest: c}
		for turn := range c.runs {
			ours, err := b.backup(ctx, mixed, c.mode)
			if err != nil {
				return nil, err
			}
			theirs, err := b.rival(ctx, c)
			if err != nil {
				return nil, err
			}
			b.say("%s %d of %d: dbbackup %.1f s, %s %.1f s", c.mode, turn+1, c.runs, ours.wall.Seconds(), c.rival, theirs.wall.Seconds())
			s.ours, s.theirs = append(s.ours, ours), append(s.theirs, theirs)
		}
		all = append(all, s)
	}
	return all, nil
}

// rival runs what is taken instead, and removes what it wrote.
func (b *bench) rival(ctx context.Context, c contest) (cost, error) {
	out := filepath.Join(b.out, "rival")
	var (
		commands []*exec.Cmd
		to       string
	)
	if c.archive == nil {
		commands, to = []*exec.Cmd{b.client(ctx, "pg_dump", mixed), b.command(ctx, "pigz", "-6")}, out
	} else {
		commands = []*exec.Cmd{b.client(ctx, "pg_dump", append(c.archive, "-f", out, mixed)...)}
	}
	took, err := pipeline(commands, to)
	if err == nil {
		took.bytes, err = bytesBelow(out)
	}
	return took, errors.Join(err, os.RemoveAll(out))
}

// memory is the peak of dbbackup's own memory in one mode.
type memory struct {
	mode                 string
	mixed, small, tables int64 // bytes
}

// measureMemory adds runs on a tenth and on many tables to the peaks that the
// contests saw.
func (b *bench) measureMemory(ctx context.Context, seen []speed) ([]memory, error) {
	s := sizes[b.scale]
	if _, err := b.load(ctx, small, mixedSQL, size{s.rows / 10, s.blobs / 10}); err != nil {
		return nil, err
	}
	var all []memory
	for _, c := range seen {
		m := memory{mode: c.mode}
		for _, run := range c.ours {
			m.mixed = max(m.mixed, run.peakRSS)
		}
		for _, on := range []struct {
			database string
			peak     *int64
		}{{small, &m.small}, {tables, &m.tables}} {
			run, err := b.backup(ctx, on.database, c.mode)
			if err != nil {
				return nil, err
			}
			*on.peak = run.peakRSS
			b.say("%s of %s: %.1f s, peak memory %s", c.mode, on.database, run.wall.Seconds(), megabytes(run.peakRSS))
		}
		all = append(all, m)
	}
	return all, nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/retention"
	"dbbackup/internal/store"
	"dbbackup/internal/verify"
)

// retentionFlags are the policy. A backup that is given one prunes after it
// has succeeded.
func retentionFlags() []cli.Flag {
	return under("Retention (per database; a set stays when any of these keeps it)", []cli.Flag{
		intFlag("keep-last", "keep the newest `N` sets"),
		intFlag("keep-daily", "keep the newest set of each of `N` days"),
		intFlag("keep-weekly", "keep the newest set of each of `N` weeks"),
		intFlag("keep-monthly", "keep the newest set of each of `N` months"),
		intFlag("keep-yearly", "keep the newest set of each of `N` years"),
		stringFlag("keep-within", "keep every set younger than this `TIME`, as 36h", ""),
		onceFlag("allow-shrink", "prune also when a database has become much smaller than it was"),
	})
}

// policy returns what the flags and the file say; false where they say nothing.
func (s *settings) policy() (retention.Policy, bool, error) {
	c := &s.a.config
	p := retention.Policy{
		Last: s.number("keep-last", c.KeepLast), Daily: s.number("keep-daily", c.KeepDaily), Weekly: s.number("keep-weekly", c.KeepWeekly),
		Monthly: s.number("keep-monthly", c.KeepMonthly), Yearly: s.number("keep-yearly", c.KeepYearly), AllowShrink: s.Bool("allow-shrink"),
	}
	within := s.text("keep-within", c.KeepWithin)
	// A zero in the file is the sample's way to say nothing.
	given := s.Bool("allow-shrink") || p != (retention.Policy{AllowShrink: p.AllowShrink}) || within != ""
	for _, name := range []string{"keep-last", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "keep-within"} {
		given = given || s.IsSet(name)
	}
	if !given {
		return p, false, nil
	}
	if err := s.refuseEmpty("keep-within"); err != nil {
		return p, true, err
	}
	if text := within; text != "" {
		var err error
		if p.Within, err = parseTime("keep-within", text); err != nil {
			return p, true, err
		}
	}
	return p, true, p.Validate()
}

func (a *application) prune(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	policy, _, err := s.policy()
	if err != nil {
		return err
	}
	if err := policy.Validate(); err != nil { // also when no flag was given
		return err
	}
	dryRun, m := s.Bool("dry-run"), newPruneMetrics()
	err = s.eachStore(ctx, func(place store.Place) error {
		result, err := a.pruneStore(ctx, s, place, policy, dryRun)
		a.log.Close()
		if err != nil && !planned(result) {
			return err
		}
		m.add(place, result)
		return a.keep(err, a.printPruned(s, place, result))
	})
	if dryRun {
		return err
	}
	return a.keep(err, m.write(s, interrupted(ctx, err)))
}

// planned says that prune came as far as a plan: of a store that could not be locked
// or listed nobody knows what there is to remove.
func planned(r retention.Result) bool { return len(r.Keep)+len(r.Delete) > 0 }

// errKept means that sets stay which the store refused to delete: declared, as
// omissions are.
var errKept = fmt.Errorf("the store refused to delete: %w", errOmissions)

// pruneStore prunes a store under its lock.
func (a *application) pruneStore(ctx context.Context, s *settings, place store.Place, policy retention.Policy, dryRun bool) (result retention.Result, err error) {
	keys, err := s.readKeys(ctx)
	if err != nil {
		return result, err
	}
	if !dryRun {
		var release func() error
		ctx, release, err = backup.Lock(ctx, place, store.Holder{Host: hostname(), PID: os.Getpid(), Since: time.Now(), Purpose: "prune"})
		if err != nil {
			return result, err
		}
		defer func() { err = a.keep(err, release()) }()
	}
	result, err = retention.Prune(ctx, retention.Options{
		Store: place, Policy: policy, DryRun: dryRun, Keys: keys, Report: a.log, Now: time.Now(),
		Verify: func(ctx context.Context, set *backupset.Set) error { return a.sound(ctx, s, set) },
	})
	if errors.Is(err, store.ErrDenied) { // T93: not now, and said
		a.log.Warn("sets stay, because the store refuses to delete them; the next prune tries again", report.F("store", place.String()), report.F("because", err))
		result.Stops = append(result.Stops, console.FirstLine(err))
		err = errKept
	}
	return result, err
}

// sound reads a whole set, and returns an error when it is damaged.
func (a *application) sound(ctx context.Context, s *settings, set *backupset.Set) error {
	problems, err := verify.Set(ctx, set, verify.Options{Search: s.search(), Env: a.env, Report: a.log})
	if err != nil {
		return err
	}
	for _, p := range problems {
		if p.Severity == backupset.Damage {
			return fault.New(fault.Integrity, "", "%s", p.Text)
		}
	}
	return nil
}

// prunedJSON is the result of prune.
type prunedJSON struct {
	Store   string      `json:"store"`
	DryRun  bool        `json:"dry_run"`
	Keep    []prunedSet `json:"keep"`
	Delete  []prunedSet `json:"delete"`  // what the policy does not keep
	Deleted []string    `json:"deleted"` // what of it is gone
	Verify  []string    `json:"verify"`  // what would be read first
	Stops   []string    `json:"stops"`   // why more stays than the policy keeps
}

type prunedSet struct {
	ID      string   `json:"id"`
	Bytes   int64    `json:"stored_bytes"`
	Reasons []string `json:"reasons,omitempty"`
}

// namedNewest is of how many databases it is said by name that a set is their newest.
const namedNewest = 3

// reasonsToRead are the reasons for a person: the newest set of a cluster is that of
// each of its databases, which may be hundreds.
func reasonsToRead(k retention.Kept) []string {
	if len(k.Newest) <= namedNewest {
		return k.Reasons
	}
	folded := k.Newest[namedNewest:]
	reasons := slices.DeleteFunc(slices.Clone(k.Reasons), func(reason string) bool { return slices.Contains(folded, reason) })
	return append(reasons, fmt.Sprintf("the newest of %d more, which --json names", len(folded)))
}

func (a *application) printPruned(s *settings, place store.Place, r retention.Result) error {
	if s.Bool("json") {
		j := prunedJSON{
			Store: place.String(), DryRun: s.Bool("dry-run"), Keep: []prunedSet{}, Delete: []prunedSet{},
			Deleted: append([]string{}, r.Deleted...), Verify: append([]string{}, r.Verify...), Stops: append([]string{}, r.Stops...),
		}
		for _, k := range r.Keep {
			j.Keep = append(j.Keep, prunedSet{k.ID, k.Bytes, k.Reasons})
		}
		for _, d := range r.Delete {
			j.Delete = append(j.Delete, prunedSet{ID: d.ID, Bytes: d.Bytes})
		}
		return json.NewEncoder(a.stdout).Encode(j)
	}
	p := &printer{w: a.stdout}
	if len(s.storeRefs()) > 1 {
		p.line("Store %s:", place)
	}
	for _, k := range r.Keep {
		p.wrapped("keep    ", fmt.Sprintf("%s (%s)", k.ID, strings.Join(reasonsToRead(k), "; ")))
	}
	verb := "removed"
	if s.Bool("dry-run") {
		verb = "remove "
	}
	var bytes int64
	for _, d := range r.Delete {
		bytes += d.Bytes
		if s.Bool("dry-run") || slices.Contains(r.Deleted, d.ID) {
			p.line("%s %s (%s)", verb, d.ID, bytesize.Format(d.Bytes))
		} else {
			p.line("left    %s", d.ID)
		}
	}
	for _, id := range r.Verify {
		p.line("Before anything goes, %s is read to its end.", id)
	}
	switch {
	case len(r.Delete) == 0:
		p.line("Nothing to remove.")
	case s.Bool("dry-run"):
		p.line("Would remove %s, %s. Nothing was changed.", plural(len(r.Delete), "set"), bytesize.Format(bytes))
	default:
		p.line("Removed %s.", plural(len(r.Deleted), "set"))
	}
	return p.err
}

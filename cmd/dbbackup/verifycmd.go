package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dbbackup/internal/backupset"
	"dbbackup/internal/console"
	"dbbackup/internal/drill"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
	"dbbackup/internal/verify"
)

// verifiedJSON is the result of verify.
type verifiedJSON struct {
	Set      string        `json:"set"`
	Result   string        `json:"result"`          // ok or damaged; with --drill also not restorable, or not drilled
	Error    string        `json:"error,omitempty"` // of the drill
	Quick    bool          `json:"quick"`
	Locked   bool          `json:"locked,omitempty"` // encrypted, and no key was given: only digests were compared
	Seconds  float64       `json:"seconds"`
	Problems []problemJSON `json:"problems"`
	Newer    []passedOver  `json:"newer_damaged,omitempty"` // sets that count for nothing, where the newest was asked for
	Drill    *drillJSON    `json:"drill,omitempty"`
}

// passedOver is a damaged set that is newer than the one that was verified.
type passedOver struct {
	Set    string `json:"set"`
	Reason string `json:"reason"`
}

type problemJSON struct {
	Severity string `json:"severity"`
	Database string `json:"database,omitempty"`
	Object   string `json:"object,omitempty"`
	Text     string `json:"text"`
}

func (a *application) verify(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 1); err != nil {
		return err
	}
	if err := s.refuseDrillFlags(); err != nil {
		return err
	}
	began := time.Now()
	found, err := a.findSet(ctx, s, cmp.Or(s.Args().First(), backupset.Latest), backupset.Want{})
	if err != nil {
		return err
	}
	defer found.Close() //nolint:errcheck // only a drill writes, and its record is durable by then
	place, set := found.place, found.set
	newer := newerDamaged(found.damaged)
	var drilling *drill.Options
	if s.Bool("drill") { // what it lacks is said before hours of reading
		if set.Locked() {
			return fault.New(fault.WrongKey, "--identity FILE, --keys DIR or --passphrase-file FILE", "backup set %s is encrypted, and a drill restores it", set.ID())
		}
		if drilling, err = a.drillOptions(ctx, s, set); err != nil {
			return err
		}
	}
	result, err := a.readSet(ctx, s, set)
	if err != nil {
		return err
	}
	result.Seconds, result.Newer = time.Since(began).Seconds(), newer
	if result.Result != "ok" || drilling == nil {
		a.noteVerified(ctx, place, set, result)
		err = a.endVerify(s, set, result)
	} else {
		err = a.drill(ctx, s, place, result, *drilling)
	}
	return a.keep(err, damagedSince(newer))
}

// newerDamaged are the damaged sets that the newest sound one stands in for. A
// restore can do with that; who asks every night whether the newest backup is sound
// is to hear that it is not.
func newerDamaged(passed []backupset.Entry) []passedOver {
	var newer []passedOver
	for _, e := range passed {
		newer = append(newer, passedOver{e.ID, e.Reason})
	}
	return newer
}

func damagedSince(newer []passedOver) error {
	var errs []error
	for _, n := range newer {
		errs = append(errs, fault.New(fault.Integrity, "make a new backup; where another store has the set whole, dbbackup copy SET mends this one",
			"backup set %s is newer, and damaged: %s", n.Set, n.Reason))
	}
	return errors.Join(errs...)
}

// readSet verifies a set by reading it.
func (a *application) readSet(ctx context.Context, s *settings, set *backupset.Set) (verifiedJSON, error) {
	problems, err := verify.Set(ctx, set, verify.Options{Quick: s.Bool("quick"), Search: s.search(), Env: a.env, Report: a.log})
	a.log.Close()
	result := verifiedJSON{Set: set.ID(), Result: "ok", Quick: s.Bool("quick"), Locked: set.Locked(), Problems: []problemJSON{}}
	for _, p := range problems {
		severity := "warning"
		if p.Severity == backupset.Damage {
			severity, result.Result = "damage", "damaged"
		}
		result.Problems = append(result.Problems, problemJSON{severity, p.Database, p.Object, p.Text})
	}
	return result, err
}

// noteVerified leaves word for prune, which reads a set that nobody has verified,
// and relies on one that somebody has. A store that cannot be written to is none of
// verify's business.
func (a *application) noteVerified(ctx context.Context, place store.Place, set *backupset.Set, result verifiedJSON) {
	var err error
	switch {
	case result.Result != "ok":
		err = backupset.ForgetVerified(ctx, set)
	case result.Quick || !ownFolder(place): // what one writes into another's folder its owner cannot read
	default:
		err = backupset.WriteVerified(ctx, set, time.Now())
	}
	if err != nil {
		a.log.Info("that was not noted in the store; prune reads the set for itself", report.F("store", place.String()), report.F("because", console.FirstLine(err)))
	}
}

// ownFolder reports whether a store is this user's, or is no folder. What root writes
// becomes the folder's owner's.
func ownFolder(place store.Place) bool {
	if _, local := place.(store.Local); !local {
		return true
	}
	var info unix.Stat_t
	return os.Geteuid() == 0 || unix.Stat(place.String(), &info) == nil && int(info.Uid) == os.Geteuid()
}

func (a *application) endVerify(s *settings, set *backupset.Set, result verifiedJSON) error {
	if err := a.printVerified(s, set, result); err != nil {
		return err
	}
	if result.Result != "ok" {
		return fault.New(fault.Integrity, "restore from another set, or mend this one from another store (dbbackup copy --check); objects that are not named are sound", "backup set %s is damaged", set.ID())
	}
	return nil
}

func (a *application) printVerified(s *settings, set *backupset.Set, result verifiedJSON) error {
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(result)
	}
	p := &printer{w: a.stdout}
	for _, problem := range result.Problems {
		p.line("%s: %s", problem.Severity, problem.Text)
	}
	how := "every byte was read, every archive to its end"
	if result.Locked {
		how = "every byte is what was stored; it is encrypted, and without its key nobody looked at what it holds"
	}
	if result.Quick {
		how = "every file is there in its size; contents were not read"
	}
	if result.Result == "ok" {
		m := set.Manifest()
		p.line("%s is sound: %s, %s; %s (%s)", m.ID, plural(len(m.Databases), "database"), plural(len(m.Objects), "object"), how, console.ShortTime(result.Seconds))
	}
	return p.err
}

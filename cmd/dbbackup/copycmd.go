package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

func copyFlags() []cli.Flag {
	return under("Copy", []cli.Flag{
		&cli.StringFlag{Name: "from", Usage: "the `STORE` to copy from (default: the first --store)"},
		&cli.StringFlag{Name: "to", Usage: "the `STORE` to copy to"},
		onceFlag("all", "copy every complete set that the other store lacks"),
		onceFlag("check", "read what the other store has already, too, and copy again what is damaged there"),
	})
}

// copiedJSON is the result of copy.
type copiedJSON struct {
	From    string   `json:"from"`
	To      string   `json:"to"`
	Sets    []string `json:"sets"` // that were copied or completed, bases first; the others were whole
	Keys    []string `json:"keys"` // sets that were whole, and whose key was rotated since
	Objects int      `json:"objects"`
	Bytes   int64    `json:"bytes"`
	Seconds float64  `json:"seconds"`
}

// copySets brings sets from one store to another, with the sets they refer to.
func (a *application) copySets(ctx context.Context, s *settings) (err error) {
	if s.String("to") == "" {
		return fault.New(fault.Usage, helpHint(s.Context), "--to names no store to copy to")
	}
	if s.Bool("all") && s.NArg() > 0 {
		return fault.New(fault.Usage, "", "--all copies every set: name none")
	}
	began := time.Now()
	fromRef := s.String("from")
	if fromRef == "" {
		fromRef = s.storeRefs()[0]
	}
	from, err := s.open(ctx, fromRef, false)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // only read
	to, err := s.open(ctx, s.String("to"), true)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // everything is durable by then
	if from.String() == to.String() {
		return fault.New(fault.Usage, "", "--from and --to are both %s", to)
	}
	ids, unfit, err := a.toCopy(ctx, s, from)
	if err != nil {
		return err
	}
	result := copiedJSON{From: from.String(), To: to.String(), Sets: []string{}, Keys: []string{}}
	err = a.copyLocked(ctx, from, to, backupset.CopyOptions{Check: s.Bool("check")}, ids, &result)
	if ctx.Err() == nil {
		err = a.keep(err, lacking(ctx, from, to, unfit))
	}
	a.log.Close()
	result.Seconds = time.Since(began).Seconds()
	return a.keep(err, a.printCopied(s, result, err == nil))
}

// toCopy are the ids of the sets that the user named, and of all sets those that
// cannot be copied.
func (a *application) toCopy(ctx context.Context, s *settings, from store.Store) (ids []string, unfit []backupset.Entry, err error) {
	if s.Bool("all") {
		return everySet(ctx, from)
	}
	refs := s.Args().Slice()
	if len(refs) == 0 {
		refs = []string{backupset.Latest}
	}
	for _, ref := range refs {
		id, notes, err := backupset.Resolve(ctx, from, ref, backupset.Want{})
		a.passOn(notes)
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil, nil
}

// everySet sorts the sets of a store by whether they can be copied. A store without
// one is an error: it is a mistyped prefix more often than a new store, and every
// night would say that the other store has it all.
func everySet(ctx context.Context, from store.Store) (ids []string, unfit []backupset.Entry, err error) {
	entries, err := backupset.List(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch e.Status {
		case backupset.StatusComplete:
			ids = append(ids, e.ID)
		case backupset.StatusDamaged, backupset.StatusNewer:
			unfit = append(unfit, e)
		}
	}
	if len(ids)+len(unfit) == 0 {
		return nil, nil, fault.New(fault.NotFound, "check its path or URL, the prefix too; list shows the sets of a store", "store %s holds no complete backup set", from)
	}
	return ids, unfit, nil
}

// lacking is an error for each set that could not be copied, and that the other
// store has not got whole from elsewhere.
func lacking(ctx context.Context, from, to store.Store, unfit []backupset.Entry) error {
	if len(unfit) == 0 {
		return nil
	}
	there, err := backupset.List(ctx, to)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range unfit {
		kind, hint := fault.Integrity, "where another store has it whole, dbbackup copy SET --check --from THAT --to THIS mends it; prune never removes it"
		if e.Status == backupset.StatusNewer {
			kind, hint = fault.Precondition, "copy with the newest dbbackup that writes to this store"
		}
		if !slices.ContainsFunc(there, func(o backupset.Entry) bool { return o.ID == e.ID && o.Status == backupset.StatusComplete }) {
			errs = append(errs, fault.New(kind, hint, "backup set %s was not copied, because it is %s in store %s: %s", e.ID, e.Status, from, e.Reason))
		}
	}
	return errors.Join(errs...)
}

// copyLocked copies under the lock of the store that is written to.
func (a *application) copyLocked(ctx context.Context, from, to store.Place, o backupset.CopyOptions, ids []string, result *copiedJSON) (err error) {
	if err := to.CheckWritable(ctx); err != nil {
		return err
	}
	held, release, err := backup.Lock(ctx, to, store.Holder{Host: hostname(), PID: os.Getpid(), Since: time.Now(), Purpose: "copy"})
	if err != nil {
		return err
	}
	defer func() { err = a.keep(err, release()) }()
	done, err := backupset.Copy(held, from, to, o, a.log, ids...)
	result.Sets, result.Keys = append(result.Sets, done.Sets...), append(result.Keys, done.Keys...)
	result.Objects, result.Bytes = done.Objects, done.Bytes
	if held.Err() == nil {
		backup.Catalog(held, to, a.log)
	}
	return err
}

// printCopied prints what was copied; that the other store has it all only when
// nothing failed.
func (a *application) printCopied(s *settings, r copiedJSON, all bool) error {
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(r)
	}
	p := &printer{w: a.stdout}
	for _, id := range r.Sets {
		p.line("copied %s", id)
	}
	for _, id := range r.Keys {
		p.line("rotated %s", id)
	}
	switch none := len(r.Sets) == 0 && r.Objects == 0; {
	case none && !all:
		return p.err
	case none && len(r.Keys) > 0:
		p.line("Brought the rotated keys of %s to %s, which has all else.", plural(len(r.Keys), "set"), r.To)
		return p.err
	case none:
		p.line("Nothing to copy: %s has it all.", r.To)
		return p.err
	}
	p.line("Copied %s, %s, %s, from %s to %s in %s.", plural(len(r.Sets), "set"), plural(r.Objects, "object"),
		bytesize.Format(r.Bytes), r.From, r.To, console.ShortTime(r.Seconds))
	return p.err
}

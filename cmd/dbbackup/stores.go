package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
	"dbbackup/internal/store/fanout"
	"dbbackup/internal/stores"
)

// defaultStore holds when nobody names another.
const defaultStore = "./backups"

// storeRefs are the stores that the user named, in order.
func (s *settings) storeRefs() []string {
	refs := s.list("store", s.a.config.Store)
	if len(refs) == 0 {
		return []string{defaultStore}
	}
	return refs
}

// storeNames are the stores for the eye, and for hooks: paths are absolute.
func (s *settings) storeNames() string {
	var names []string
	for _, ref := range s.storeRefs() {
		if path, ok := stores.Folder(ref); ok {
			if abs, err := filepath.Abs(path); err == nil {
				ref = abs
			}
		}
		names = append(names, ref)
	}
	return strings.Join(names, ", ")
}

// storeFolder is the first store that is a folder of this machine, which the host
// is asked about; empty when none is.
func (s *settings) storeFolder() string {
	for _, ref := range s.storeRefs() {
		if path, ok := stores.Folder(ref); ok {
			return path
		}
	}
	return ""
}

// open opens one store.
func (s *settings) open(ctx context.Context, ref string, create bool) (store.Place, error) {
	return stores.Open(ctx, ref, stores.Options{Create: create, Env: s.a.env, Warn: func(text string) { s.a.log.Warn(text) }})
}

// openForRun opens the stores that a run writes to as one. A folder that is not
// there yet is made with create.
func (s *settings) openForRun(ctx context.Context, create bool) (store.Place, error) {
	refs := s.storeRefs()
	quorum := s.number("store-quorum", s.a.config.StoreQuorum)
	if quorum < 1 || quorum > len(refs) {
		return nil, fault.New(fault.Usage, "", "--store-quorum is %d of %s", quorum, plural(len(refs), "store"))
	}
	if len(refs) == 1 {
		return s.open(ctx, refs[0], create)
	}
	patience, err := parseTime("store-patience", s.text("store-patience", s.a.config.StorePatience))
	if err != nil {
		return nil, err
	}
	var places []store.Place
	for i, ref := range refs {
		if slices.Contains(refs[:i], ref) {
			err = fault.New(fault.Usage, "", "the store %s is named twice", ref)
		}
		place, openErr := s.open(ctx, ref, create)
		switch {
		case fault.Is(openErr, fault.Usage):
			err = errors.Join(err, openErr)
		case openErr != nil:
			place = fanout.Missing(ref, openErr)
		}
		if place != nil {
			places = append(places, place)
		}
	}
	var all *fanout.Stores
	if err == nil {
		all, err = fanout.New(places, fanout.Options{Quorum: quorum, Patience: patience, Warn: s.fellBehind})
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(places))
	}
	return all, nil
}

func (s *settings) fellBehind(place store.Place, reason error) {
	s.a.log.Warn("a store fell behind: nothing more is written to it in this run", report.F("store", place.String()), report.F("because", reason))
}

// errBehind means that a set is whole in as many stores as were asked for, and
// that others lack it: declared, as omissions are.
var errBehind = fmt.Errorf("the set is not in every store: %w", errOmissions)

// behindSummary is a store that lacks the set that a run made.
type behindSummary struct {
	Store  string `json:"store"`
	Reason string `json:"reason"`
	from   string // a store that has the set
	ref    string // the store as the user named it
}

func (s *settings) lagging(place store.Place) []behindSummary {
	list := []behindSummary{}
	if all, ok := place.(*fanout.Stores); ok {
		for _, b := range all.Behind() {
			one := behindSummary{Store: b.Store.String(), Reason: b.Reason.Error(), ref: s.storeRefs()[b.Index]}
			if whole := all.Places(); len(whole) > 0 {
				one.from = whole[0].String()
			}
			list = append(list, one)
		}
	}
	return list
}

func closeAll(places []store.Place) error {
	var errs []error
	for _, p := range places {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// eachStore does something in each store by itself. One that fails does not keep
// the others from it.
func (s *settings) eachStore(ctx context.Context, do func(place store.Place) error) error {
	return s.eachOf(ctx, s.storeRefs(), do)
}

// eachOf is eachStore of some of the stores.
func (s *settings) eachOf(ctx context.Context, refs []string, do func(place store.Place) error) error {
	several := len(s.storeRefs()) > 1
	var errs []error
	var declared error
	for _, ref := range refs {
		place, err := s.open(ctx, ref, false)
		if err == nil {
			err = s.a.keep(do(place), place.Close())
		}
		switch {
		case err == nil:
		case isDeclared(err):
			declared = err
		case several:
			errs = append(errs, fmt.Errorf("store %s: %w", ref, err))
		default:
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return declared
	}
	return joined(errs)
}

// found is a set, and the store that it was found in.
type found struct {
	place   store.Place
	set     *backupset.Set
	damaged []backupset.Entry // newer sets that latest passed over for their damage, oldest first
}

func (f found) Close() error { return f.place.Close() }

// findSet finds and opens a set, and passes on what the operator should know. Of
// several stores it is the first that has the set; of latest the newest in any
// of them. The caller closes what is found.
func (a *application) findSet(ctx context.Context, s *settings, ref string, want backupset.Want) (found, error) {
	var f found
	var id string
	var notes, best []backupset.Note // of where nothing was found, and of what was
	var errs []error
	keys, err := s.readKeys(ctx)
	if err != nil {
		return f, err
	}
	refs := s.storeRefs()
	for _, name := range refs {
		place, there, more, err := s.resolveIn(ctx, name, ref, want, keys)
		if err != nil {
			if len(refs) > 1 {
				err = fmt.Errorf("store %s: %w", name, err)
			}
			errs, notes = append(errs, err), append(notes, more...)
			continue
		}
		if f.place != nil && !(ref == backupset.Latest && backupset.Older(id, there)) {
			_ = place.Close() // only read
			continue
		}
		if f.place != nil {
			_ = f.place.Close() // only read
		}
		f.place, id, best = place, there, more
		if ref != backupset.Latest {
			break
		}
	}
	if f.place == nil {
		a.passOn(notes)
		return f, joined(errs)
	}
	if a.passOn(best); len(refs) > 1 {
		for _, err := range errs {
			a.log.Warn("a store was passed over", report.F("because", console.FirstLine(err)))
		}
		a.log.Info("using store", report.F("store", f.place.String()))
	}
	a.log.Info("using backup set", report.F("id", id))
	if f.set, err = a.openSet(ctx, f.place, id, keys); err != nil {
		return f, errors.Join(err, f.place.Close())
	}
	for _, note := range slices.Backward(best) { // oldest first
		if note.Damaged != nil {
			f.damaged = append(f.damaged, *note.Damaged)
		}
	}
	return f, nil
}

// joined is one error as it is, and several as one.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func (a *application) passOn(notes []backupset.Note) {
	for _, note := range notes {
		a.log.Warn(note.Text)
	}
}

// resolveIn opens a store and looks for a set. On an error the store is closed.
func (s *settings) resolveIn(ctx context.Context, name, ref string, want backupset.Want, keys backupset.Keys) (place store.Place, id string, notes []backupset.Note, err error) {
	if place, err = s.open(ctx, name, false); err != nil {
		return nil, "", nil, err
	}
	if id, notes, err = backupset.Resolve(ctx, place, ref, want, backupset.WithTrust(keys)); err != nil {
		return nil, "", notes, errors.Join(err, place.Close())
	}
	return place, id, notes, nil
}

// storeList is a list of stores in the config file: one, or several.
type storeList []string

// UnmarshalYAML takes a single store for a list of one.
func (l *storeList) UnmarshalYAML(decode func(any) error) error {
	var one string
	if err := decode(&one); err == nil {
		*l = storeList{one}
		return nil
	}
	var several []string
	err := decode(&several)
	*l = several
	return err
}

// printed is what the config file says of the stores.
func (s *settings) printedStores() any {
	if refs := s.storeRefs(); len(refs) > 1 {
		return refs
	}
	return cmp.Or(s.storeRefs()[0], defaultStore)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/pgname"
	"dbbackup/internal/store"
)

// listed is one line of list.
type listed struct {
	Stores    []storeState `json:"stores"` // each that has something of it
	ID        string       `json:"id"`
	Status    string       `json:"status"`
	Reason    string       `json:"reason,omitempty"`
	Kind      string       `json:"kind,omitempty"`
	Started   time.Time    `json:"started"`
	Finished  time.Time    `json:"finished"`
	Databases []string     `json:"databases"`
	Bytes     int64        `json:"stored_bytes"`
	Omissions int          `json:"omissions"`
	Failures  int          `json:"failures"`
	Encrypted bool         `json:"encrypted,omitempty"`
	Signer    string       `json:"signer,omitempty"` // fingerprint; checked only with --trust
	Drilled   *drilled     `json:"drilled,omitempty"`
}

type storeState struct {
	Store  string `json:"store"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func (a *application) list(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	var names []string
	var all [][]inStore
	keys, err := s.readKeys(ctx)
	if err != nil {
		return err
	}
	err = s.eachStore(ctx, func(place store.Place) error {
		entries, err := backupset.List(ctx, place, backupset.WithTrust(keys))
		if err != nil {
			return err
		}
		drills, err := a.readDrills(ctx, place, "")
		if err != nil {
			return err
		}
		var list []inStore
		for _, e := range entries {
			list = append(list, inStore{e, place.String(), lastDrill(drills, e.ID)})
		}
		all, names = append(all, list), append(names, place.String())
		return nil
	})
	if len(all) == 0 {
		return err
	}
	sets := merged(all)
	if s.Bool("json") {
		return errors.Join(err, printListJSON(a.stdout, sets))
	}
	return errors.Join(err, printList(a.stdout, sets, names))
}

// inStore is a set as one store has it.
type inStore struct {
	backupset.Entry
	store string
	last  *drilled
}

// merged brings what several stores have of each set together, oldest first.
func merged(stores [][]inStore) [][]inStore {
	var sets [][]inStore
	at := map[string]int{}
	for _, list := range stores {
		for _, l := range list {
			i, ok := at[l.ID]
			if !ok {
				i = len(sets)
				at[l.ID] = i
				sets = append(sets, nil)
			}
			sets[i] = append(sets[i], l)
		}
	}
	slices.SortStableFunc(sets, func(a, b []inStore) int {
		switch {
		case backupset.Older(a[0].ID, b[0].ID):
			return -1
		case backupset.Older(b[0].ID, a[0].ID):
			return 1
		}
		return 0
	})
	return sets
}

func printListJSON(w io.Writer, sets [][]inStore) error {
	encoder := json.NewEncoder(w)
	for _, set := range sets {
		e := best(set)
		l := listed{
			Stores: []storeState{}, ID: e.ID, Status: string(e.Status), Reason: e.Reason, Kind: string(e.Kind), Started: e.Started, Finished: e.Finished,
			Databases: e.Databases, Bytes: e.Bytes, Omissions: e.Omissions, Failures: len(e.Failures),
			Drilled: e.last,
		}
		if e.Sealed != nil {
			l.Encrypted, l.Signer = true, e.Sealed.Signer
		}
		for _, in := range set {
			l.Stores = append(l.Stores, storeState{in.store, string(in.Status), in.Reason})
		}
		if err := encoder.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// best is the set in the first store where the set is whole.
func best(set []inStore) inStore {
	for _, l := range set {
		if l.Status == backupset.StatusComplete {
			return l
		}
	}
	return set[0]
}

// printList prints a line for each set; of several stores the names are given.
func printList(w io.Writer, sets [][]inStore, names []string) error {
	if len(sets) == 0 {
		_, err := fmt.Fprintln(w, "The store holds no backup set.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SET\tFINISHED (UTC)\tDATABASES\tSTORED\tSTATE") //nolint:errcheck // Flush reports
	for _, set := range sets {
		e := best(set)
		finished, databases := "", ""
		if !e.Finished.IsZero() {
			finished, databases = e.Finished.UTC().Format("2006-01-02 15:04:05"), fmt.Sprint(len(e.Databases))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.ID, finished, databases, bytesize.Format(e.Bytes), state(e.Entry, e.last)+where(set, names)) //nolint:errcheck // Flush reports
	}
	return t.Flush()
}

// where says which of several stores lack a set.
func where(set []inStore, names []string) string {
	if len(names) < 2 {
		return ""
	}
	var lacking []string
	for _, name := range names {
		i := slices.IndexFunc(set, func(l inStore) bool { return l.store == name })
		switch {
		case i < 0:
			lacking = append(lacking, "not in "+name)
		case set[i].Status != backupset.StatusComplete && set[i].Status != best(set).Status:
			lacking = append(lacking, fmt.Sprintf("%s in %s", set[i].Status, name))
		}
	}
	if len(lacking) == 0 {
		return fmt.Sprintf("; in all %d stores", len(names))
	}
	return "; " + strings.Join(lacking, "; ")
}

// state is what an operator must know before relying on a set.
func state(e backupset.Entry, last *drilled) string {
	if e.Status != backupset.StatusComplete {
		return fmt.Sprintf("%s: %s", strings.ToUpper(string(e.Status)), e.Reason)
	}
	var notes []string
	if n := len(e.Failures); n > 0 {
		var names []string
		for _, f := range e.Failures {
			names = append(names, failed(f))
		}
		notes = append(notes, "PARTIAL, failed: "+strings.Join(names, ", "))
	}
	if e.Omissions > 0 {
		notes = append(notes, plural(e.Omissions, "omission"))
	}
	if len(notes) == 0 && (last == nil || last.Result == backupset.DrillOK) {
		notes = append(notes, "ok")
	}
	if e.Sealed != nil {
		notes = append(notes, "encrypted")
	}
	if last != nil {
		notes = append(notes, last.String())
	}
	return strings.Join(notes, "; ")
}

// failed names what failed.
func failed(f backupset.Failure) string {
	if f.Database == "" {
		return "globals"
	}
	return pgname.Printable(f.Database)
}

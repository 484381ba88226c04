package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"dbbackup/backup"
	"dbbackup/internal/store"
)

// gc removes what killed runs left.
func (a *application) gc(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	return s.eachStore(ctx, func(place store.Place) error { return a.gcStore(ctx, s, place) })
}

func (a *application) gcStore(ctx context.Context, s *settings, place store.Place) (err error) {
	held, release, err := backup.Lock(ctx, place, store.Holder{Host: hostname(), PID: os.Getpid(), Since: time.Now(), Purpose: "gc"})
	if err != nil {
		return err
	}
	defer func() { err = a.keep(err, release()) }()
	n, err := backup.Clean(held, place, a.log)
	if err != nil {
		return err
	}
	backup.Catalog(held, place, a.log)
	where := ""
	if len(s.storeRefs()) > 1 {
		where = " from " + place.String()
	}
	_, err = fmt.Fprintf(a.stdout, "Removed %s of killed runs%s.\n", plural(n, "leftover"), where)
	return err
}

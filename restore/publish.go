package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// RefusedError lists the objects that a target refused during a replay.
type RefusedError struct{ Problems []pgtool.ObjectError }

func (e *RefusedError) Error() string {
	if len(e.Problems) == 1 {
		return "the server refused " + e.Problems[0].String()
	}
	const shown = 20
	var b strings.Builder
	fmt.Fprintf(&b, "the server refused %d objects:", len(e.Problems))
	for _, p := range e.Problems[:min(len(e.Problems), shown)] {
		fmt.Fprintf(&b, "\n  - %s: %s", p.Object, p.Message)
	}
	if rest := len(e.Problems) - shown; rest > 0 {
		fmt.Fprintf(&b, "\n  - and %d more", rest)
	}
	return b.String()
}

// publish gives the filled database its properties and its name in one
// transaction. The name comes last, so that nothing half-made ever bears it.
func (p *Plan) publish(ctx context.Context, conn *pg.Conn, s Step, temporary string) error {
	conn, done, err := p.revived(ctx, conn, s.Name)
	if err != nil {
		return &unpublishedError{err}
	}
	defer done()
	if err := p.rename(ctx, conn, s, temporary); err != nil {
		return &unpublishedError{err}
	}
	return nil
}

// unpublishedError: the database is filled, and only its properties or its
// name are missing.
type unpublishedError struct{ err error }

func (e *unpublishedError) Error() string {
	return "the database is filled, but could not be put in its place: " + e.err.Error()
}
func (e *unpublishedError) Unwrap() error { return e.err }

// revived returns the session that holds the lock, or a new one when hours of
// silence have cost it its connection.
func (p *Plan) revived(ctx context.Context, conn *pg.Conn, name string) (alive *pg.Conn, done func(), err error) {
	if err := conn.Exec(ctx, "look whether the session is alive", "SELECT 1"); err == nil {
		return conn, func() {}, nil
	}
	if alive, err = p.adminConn(ctx, name); err != nil {
		return nil, nil, err
	}
	done = func() { alive.Close(ctx) } //nolint:errcheck // every statement was acknowledged
	free, err := alive.TryLock(ctx, name)
	if err == nil && !free {
		err = fault.New(fault.Locked, "wait for that restore to end", "the session that locked database %s was lost, and another restore took the lock", pgname.Printable(name))
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return alive, done, nil
}

func (p *Plan) rename(ctx context.Context, conn *pg.Conn, s Step, temporary string) error {
	if err := conn.EndOwnSessions(ctx, temporary); err != nil { // a pooler's
		return err
	}
	db := pgname.Ident(temporary)
	sql := []string{
		fmt.Sprintf("COMMENT ON DATABASE %s IS NULL", db),
		fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT -1", db),
	}
	sql = append(sql, s.properties.PropertiesSQL(temporary, p.propertyOptions())...)
	rename := fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", db, pgname.Ident(s.Name))
	if s.Action != Replace {
		return conn.Transact(ctx, "rename the restored database", append(sql, rename))
	}
	return p.replace(ctx, conn, s, append(sql,
		fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", pgname.Ident(s.Name), pgname.Ident(p.formerName(s))), rename))
}

func (p *Plan) formerName(s Step) string {
	return strings.Replace(p.temporaryName(s), "_restoring_", "_replaced_", 1)
}

// replace puts the new database in the place of the existing one. That one
// keeps its name and its data until the transaction that gives both their new
// names.
func (p *Plan) replace(ctx context.Context, conn *pg.Conn, s Step, sql []string) error {
	name := pgname.Ident(s.Name)
	if err := conn.Exec(ctx, "close database "+pgname.Printable(s.Name),
		fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS false", name)); err != nil {
		return err
	}
	err := conn.EndSessions(ctx, s.Name)
	if err == nil {
		err = conn.Transact(ctx, "swap the databases", sql)
	}
	if err != nil {
		reopen := conn.Exec(context.WithoutCancel(ctx), "reopen database "+pgname.Printable(s.Name),
			fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS true", name))
		return errors.Join(err, reopen)
	}
	return nil
}

// dropReplaced drops the database whose place was taken. The new one is in
// place, whatever happens here.
func (p *Plan) dropReplaced(ctx context.Context, conn *pg.Conn, s Step) error {
	former := p.formerName(s)
	err := conn.Exec(ctx, "drop the replaced database", fmt.Sprintf("ALTER DATABASE %s IS_TEMPLATE false", pgname.Ident(former)))
	if err == nil {
		err = p.drop(ctx, conn, former)
	}
	if err != nil {
		return fault.New(fault.Failed, "drop database "+former+" by hand", "the database is restored, but the one that it replaces is still there as %s: %w", former, err)
	}
	return nil
}

// leave decides what becomes of a database that did not come to its place.
// When the target refused objects, or its properties or name, the rest is there
// and may be all that is left of the data: it stays, under its temporary name,
// and the error says how to use it. Anything else that broke off is dropped.
func (p *Plan) leave(ctx context.Context, conn *pg.Conn, s Step, temporary string, o *Outcome, err error) error {
	var refused *RefusedError
	var unpublished *unpublishedError
	if !errors.As(err, &refused) && !errors.As(err, &unpublished) && s.contents != nil {
		o.KeptAs = temporary
		how := "run the same restore again: it goes on where this one stopped"
		if fault.Is(err, fault.Integrity) {
			salvage := "the same with --salvage"
			if p.o.Kind == backupset.Cluster {
				salvage = "`restore single " + pgname.Printable(s.Source.Name) + " --salvage`"
			}
			how = "put the object back, or use another store that has the set, and run the same restore again: it goes on where this one stopped; " +
				"where there is none, " + salvage + " goes on without what is damaged"
		}
		how += "; to give it up: DROP DATABASE " + temporary
		return errors.Join(err, fault.Keeping(how, "what was restored so far is kept as database "+temporary))
	}
	if !errors.As(err, &refused) && !errors.As(err, &unpublished) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(err, p.dropUnfinished(ctx, conn, temporary))
	}
	o.KeptAs = temporary
	rest := "what could be restored"
	if s.Source.Mode == backupset.Plain {
		rest = "what stands before that in the script"
	}
	return fault.New(fault.Failed, rest+fmt.Sprintf(" is kept as database %s; running the restore again replaces it, and if it is good enough: ALTER DATABASE %s CONNECTION LIMIT -1; ALTER DATABASE %s RENAME TO %s; its owner, privileges and settings stand in %s of the set",
		temporary, temporary, temporary, pgname.Ident(s.Name), s.Source.Create), "%w", err)
}

const sizeEvery = time.Second

// sizeOf asks for a size, also when the work that is watched has ended.
func sizeOf(ctx context.Context, conn *pg.Conn, database string) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return conn.DatabaseBytes(ctx, database)
}

// watchSize tells the task how large the database has become, until the
// returned function is called. A watch that cannot connect watches nothing: it
// must not fail a restore that works.
func (p *Plan) watchSize(ctx context.Context, database string, task report.Task) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := p.adminConn(ctx, database)
		if err != nil {
			return
		}
		defer conn.Close(ctx) //nolint:errcheck // only read from
		ticker := time.NewTicker(sizeEvery)
		defer ticker.Stop()
		for over := false; !over; {
			select {
			case <-ctx.Done():
				over = true // one last look, for the size in the end
			case <-ticker.C:
			}
			size, err := sizeOf(ctx, conn, database)
			if err != nil {
				return
			}
			task.Progress(size)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

package pgcopy

import (
	"context"
	"fmt"
	"strings"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// The ledger is a table in the database that is being filled, gone before it gets
// its name. A chunk and its row in the ledger commit together (R3).
const (
	ledgerSchema = "dbbackup_restore"
	ledgerTable  = ledgerSchema + ".ledger"
)

// ledger is what a replay has done so far.
type ledger struct {
	done map[string]bool
}

// makeLedger begins one: all definitions are there by now. options is what an
// attempt to go on must have been asked for, too.
func makeLedger(ctx context.Context, conn *pg.Stream, options string) error {
	return conn.Exec(ctx, "make the ledger", fmt.Sprintf(
		"BEGIN; CREATE SCHEMA %s; CREATE TABLE %s (step text PRIMARY KEY); INSERT INTO %s VALUES (%s); COMMIT",
		ledgerSchema, ledgerTable, ledgerTable, pgname.Literal(optionsStep+options)))
}

// What the names of steps begin with.
const (
	optionsStep  = "options "
	postDataStep = "post-data "
	refreshStep  = "refresh "
)

// readLedger reads it; nil where there is none.
func readLedger(ctx context.Context, conn *pg.Stream) (*ledger, error) {
	exists, err := conn.Rows(ctx, "look for the ledger", "SELECT to_regclass('"+ledgerTable+"') IS NOT NULL")
	if err != nil || exists[0][0] != "t" {
		return nil, err
	}
	rows, err := conn.Rows(ctx, "read the ledger", "SELECT step FROM "+ledgerTable)
	if err != nil {
		return nil, err
	}
	l := &ledger{done: map[string]bool{}}
	for _, row := range rows {
		l.done[row[0]] = true
	}
	return l, nil
}

// noted is SQL that records a step.
func noted(step string) string {
	return fmt.Sprintf("INSERT INTO %s VALUES (%s)", ledgerTable, pgname.Literal(step))
}

// Continues reports whether a database holds a replay that was interrupted and
// can be gone on with: one of the same options, or one of the options instead that
// has not come further than rows, which is of the given options from then on.
func Continues(ctx context.Context, endpoint *pg.Endpoint, database, options, instead string) (bool, error) {
	conn, err := endpoint.ConnectStream(ctx, database)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	l, err := readLedger(ctx, conn)
	switch {
	case l == nil || err != nil:
		return false, err
	case l.done[optionsStep+options]:
		return true, nil
	case !l.done[optionsStep+instead] || l.pastRows():
		return false, nil
	}
	return true, conn.Exec(ctx, "note other options", fmt.Sprintf("UPDATE %s SET step = %s WHERE step = %s",
		ledgerTable, pgname.Literal(optionsStep+options), pgname.Literal(optionsStep+instead)))
}

// pastRows reports whether something was begun that is made of rows.
func (l *ledger) pastRows() bool {
	for step := range l.done {
		if strings.HasPrefix(step, postDataStep) || strings.HasPrefix(step, refreshStep) {
			return true
		}
	}
	return false
}

func dropLedger(ctx context.Context, conn *pg.Stream) error {
	return conn.Exec(ctx, "drop the ledger", "DROP SCHEMA IF EXISTS "+ledgerSchema+" CASCADE")
}

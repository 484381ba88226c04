package pgdump

import (
	"context"
	"errors"
	"io"

	"dbbackup/compress"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/sqltext"
)

// CheckPlain reads a whole plain dump and proves that it ends where pg_dump
// ended it: psql takes any end of its input for the end of the data, and
// commits (FACTS: exit codes and archives). maxBytes bounds what is
// decompressed; open is expected to check the digest as it reads.
func CheckPlain(ctx context.Context, open func(ctx context.Context) (io.ReadCloser, error), maxBytes int64) error {
	in, err := open(ctx)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	gz, err := compress.NewGzipReader(in)
	if err != nil {
		return damagedPlain(err)
	}
	gz.Limit(maxBytes)
	var trailer sqltext.TailCheck
	if _, err := io.Copy(&trailer, gz); err != nil {
		return damagedPlain(err)
	}
	if err := trailer.Complete(); err != nil {
		return damagedPlain(err)
	}
	return nil
}

// damagedPlain keeps the kind that the store gave an error, such as a failed
// digest; anything else that goes wrong while decompressing is damage too.
func damagedPlain(err error) error {
	if fault.KindOf(err) != fault.Failed || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.New(fault.Integrity, "restore from another set", "plain dump: %w", err)
}

// WithoutEventTriggers is a statement after which the event triggers that a script
// makes do not fire for the rest of it: pg_dump writes them before it refreshes
// materialized views. Nothing else in a script depends on them, because
// its triggers come after its rows. Only a superuser may run it. It is
// no startup option, because poolers refuse those.
func (t Target) WithoutEventTriggers() string {
	switch {
	case !t.Superuser:
		return ""
	case t.VersionNum >= 170000:
		return "SET event_triggers = off"
	default:
		return "SET session_replication_role = replica"
	}
}

// plain feeds the dump to psql, which stops at the first error.
func (p *replay) plain(ctx context.Context) ([]pgtool.ObjectError, error) {
	in, err := p.load.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	gz, err := compress.NewGzipReader(in)
	if err != nil {
		return nil, damagedPlain(err)
	}
	args := []string{
		"--no-psqlrc", "--quiet", "--echo-errors", "--no-password", "--set=ON_ERROR_STOP=1",
		"--output=/dev/null",
		"--dbname=" + p.target.Endpoint.ChildConninfo(p.load.Database, "dbbackup psql"),
	}
	if first := p.target.WithoutEventTriggers(); first != "" {
		args = append(args, "--command="+first)
	}
	args = append(args, "--file=-")
	if p.load.Whole {
		args = append(args, "--single-transaction")
	}
	command := p.target.Tools.Command(pgtool.Psql, args, p.env())
	command.Stdin = gz
	return runRefusable(ctx, command, psqlError)
}

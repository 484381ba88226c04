package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgname"
)

// The databases of the native engine's part: the binary values of mixed alone,
// one value of 1000 MB, and one with nothing in it.
const (
	blobs   = "blobs"
	giant   = "giant"
	nothing = "nothing"
)

const giantSQL = `
CREATE TABLE giant(id int PRIMARY KEY, body bytea);
ALTER TABLE giant ALTER body SET STORAGE EXTERNAL;
INSERT INTO giant SELECT 1, decode(repeat(md5('x'), 32768000), 'hex') || decode(repeat(md5('y'), 29732000), 'hex');
`

// native is how the native engine did, run by run.
type native struct {
	full, copies, unchanged, appended []cost // of mixed
	blobsFull, blobsUnchanged         []cost
	empty                             []cost // the fixed costs: nothing to read
	pgDump, pgDumpFast                []cost // -Fd -j2, and with -Z1
	restore, pgRestore                []cost
	binary, binaryRestore             []cost // with --copy-format binary
	blobBytes                         int64
	memory                            []nativeMemory
}

type nativeMemory struct {
	what   string
	peak   int64
	target float64
}

// measureNative takes turns as the other contests do.
func (b *bench) measureNative(ctx context.Context) (*native, error) {
	n := &native{}
	if err := b.loadNative(ctx, n); err != nil {
		return nil, err
	}
	for turn := range b.nativeRuns {
		if err := b.nativeTurn(ctx, n); err != nil {
			return nil, err
		}
		b.say("native %d of %d: full %.1f s, COPY to /dev/null %.1f s, unchanged %.2f s, 1 %% appended %.2f s, nothing to read %.2f s; blobs %.2f s, unchanged %.2f s",
			turn+1, b.nativeRuns, last(n.full), last(n.copies), last(n.unchanged), last(n.appended), last(n.empty), last(n.blobsFull), last(n.blobsUnchanged))
	}
	for range b.archiveRuns {
		if err := b.archiveTurn(ctx, n); err != nil {
			return nil, err
		}
		b.say("pg_dump -Fd -j2 %.1f s, with -Z1 %.1f s; restore %.1f s, pg_restore -j2 %.1f s; binary %.1f s, restore %.1f s",
			last(n.pgDump), last(n.pgDumpFast), last(n.restore), last(n.pgRestore), last(n.binary), last(n.binaryRestore))
	}
	return n, b.nativePeaks(ctx, n)
}

func last(runs []cost) float64 { return runs[len(runs)-1].wall.Seconds() }

func (b *bench) loadNative(ctx context.Context, n *native) error {
	for _, sql := range []string{
		"CREATE DATABASE " + blobs + " TEMPLATE " + mixed,
		"CREATE DATABASE " + nothing,
	} {
		if err := b.cluster.TryExec("postgres", sql); err != nil {
			return err
		}
	}
	if err := b.cluster.TryExec(blobs, "DROP TABLE orders"); err != nil {
		return err
	}
	conn, err := b.cluster.Dial(ctx, blobs)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return conn.QueryRow(ctx, "SELECT sum(octet_length(body)) FROM files").Scan(&n.blobBytes)
}

// nativeTurn measures each kind of run once, and the same COPY statements beside
// them.
func (b *bench) nativeTurn(ctx context.Context, n *native) (err error) {
	store := filepath.Join(b.out, "native")
	defer func() { err = errors.Join(err, os.RemoveAll(store)) }()
	run := func(into *[]cost, database string, args ...string) error {
		if err := b.settle(); err != nil {
			return err
		}
		c, err := b.chunked(ctx, store, database, args...)
		*into = append(*into, c)
		return err
	}
	if err := run(&n.full, mixed); err != nil {
		return err
	}
	statements, err := copyStatements(store)
	if err != nil {
		return err
	}
	copies, err := b.copyToNowhere(ctx, statements)
	if err != nil {
		return err
	}
	n.copies = append(n.copies, copies)
	if err := run(&n.unchanged, mixed, "--incremental"); err != nil {
		return err
	}
	if err := b.append(ctx); err != nil {
		return err
	}
	return errors.Join(
		run(&n.appended, mixed, "--incremental"),
		run(&n.empty, nothing),
		run(&n.blobsFull, blobs),
		run(&n.blobsUnchanged, blobs, "--incremental"),
	)
}

// append adds a hundredth of the rows.
func (b *bench) append(ctx context.Context) error {
	conn, err := b.cluster.Dial(ctx, mixed)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	s := sizes[b.scale]
	_, err = conn.Exec(ctx, fmt.Sprintf(`
		INSERT INTO orders(customer_id, status, amount, note, created_at, meta)
		SELECT customer_id, status, amount, note, created_at, meta FROM orders LIMIT %d;
		INSERT INTO files(name, body) SELECT name, body FROM files LIMIT %d; CHECKPOINT`, s.rows/100, s.blobs/100))
	return err
}

// settle lets the server and the kernel write what the last run left to be written,
// which the next one would wait for.
func (b *bench) settle() error {
	if err := b.cluster.TryExec("postgres", "CHECKPOINT"); err != nil {
		return err
	}
	unix.Sync()
	return nil
}

// chunked runs the native engine once into a store that stays.
func (b *bench) chunked(ctx context.Context, store, database string, args ...string) (cost, error) {
	before, err := bytesBelow(store)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return cost{}, err
	}
	c, err := b.timed(ctx, nil, append([]string{
		"backup", "single", database, "--mode", "chunked", "--jobs", "2", "--store", store, "--pg-bin", b.cluster.BinDir, "--quiet",
	}, args...)...)
	if err != nil {
		return c, err
	}
	after, err := bytesBelow(store)
	c.bytes = after - before
	return c, err
}

// copyStatements are those that made the only set of a store.
func copyStatements(store string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(store, "*", "databases", "*.chunks", backupset.ContentsName))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("look for %s in %s: %d found, %w", backupset.ContentsName, store, len(found), err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		return nil, err
	}
	var contents backupset.Contents
	if err := json.Unmarshal(text, &contents); err != nil {
		return nil, err
	}
	var statements []string
	for _, t := range contents.Tables {
		columns := make([]string, len(t.Columns))
		for i, name := range t.Columns {
			columns[i] = pgname.Ident(name)
		}
		for _, c := range t.Chunks {
			statements = append(statements, fmt.Sprintf(
				"COPY (SELECT %s FROM ONLY %s WHERE ctid >= '(%d,0)'::tid AND ctid < '(%d,0)'::tid) TO STDOUT (FORMAT %s)",
				strings.Join(columns, ", "), pgname.Qualified(t.Schema, t.Name), c.FirstPage, c.EndPage, t.Format))
		}
	}
	return statements, nil
}

// copyToNowhere runs the statements by psql, two at a time, with /dev/null for
// what they send.
func (b *bench) copyToNowhere(ctx context.Context, statements []string) (cost, error) {
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, sql := range statements {
		group.Go(func() error {
			_, err := pipeline([]*exec.Cmd{b.client(ctx, "psql", "--no-psqlrc", "--quiet", "--dbname="+mixed, "--command="+sql)}, os.DevNull)
			return err
		})
	}
	err := group.Wait()
	return cost{wall: time.Since(began)}, err
}

// archiveTurn measures pg_dump, and both ways back.
func (b *bench) archiveTurn(ctx context.Context, n *native) (err error) {
	out, store := filepath.Join(b.out, "rival"), filepath.Join(b.out, "native")
	defer func() { err = errors.Join(err, os.RemoveAll(out), os.RemoveAll(store)) }()
	for _, rival := range []struct {
		into *[]cost
		args []string
	}{{&n.pgDump, nil}, {&n.pgDumpFast, []string{"-Z1"}}} {
		if err := os.RemoveAll(out); err != nil {
			return err
		}
		if err := b.settle(); err != nil {
			return err
		}
		args := append([]string{"-Fd", "-j2", "-f", out}, append(rival.args, mixed)...)
		took, err := pipeline([]*exec.Cmd{b.client(ctx, "pg_dump", args...)}, "")
		if err == nil {
			took.bytes, err = bytesBelow(out)
		}
		if err != nil {
			return err
		}
		*rival.into = append(*rival.into, took)
	}
	if _, err := b.chunked(ctx, store, mixed); err != nil {
		return err
	}
	restore := func() (cost, error) {
		return b.timedRestore(ctx, b.command(ctx, b.binary, "restore", "single", mixed, "--target-db", "restored", "--jobs", "2",
			"--store", store, "--pg-bin", b.cluster.BinDir, "--quiet"), "")
	}
	ours, err := restore()
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(store), b.settle()); err != nil {
		return err
	}
	binary, err := b.chunked(ctx, store, mixed, "--copy-format", "binary")
	if err != nil {
		return err
	}
	binaryRestore, err := restore()
	if err != nil {
		return err
	}
	n.binary, n.binaryRestore = append(n.binary, binary), append(n.binaryRestore, binaryRestore)
	theirs, err := b.timedRestore(ctx, b.client(ctx, "pg_restore", "-j2", "-d", "restored", out), "CREATE DATABASE restored")
	if err != nil {
		return err
	}
	n.restore, n.pgRestore = append(n.restore, ours), append(n.pgRestore, theirs)
	return nil
}

func (b *bench) timedRestore(ctx context.Context, cmd *exec.Cmd, before string) (cost, error) {
	if before != "" {
		if err := b.cluster.TryExec("postgres", before); err != nil {
			return cost{}, err
		}
	}
	if err := b.settle(); err != nil {
		return cost{}, err
	}
	took, err := pipeline([]*exec.Cmd{cmd}, os.DevNull)
	return took, errors.Join(err, b.cluster.TryExec("postgres", "DROP DATABASE IF EXISTS restored"))
}

// nativePeaks measures memory where it could grow.
func (b *bench) nativePeaks(ctx context.Context, n *native) error {
	if _, err := b.load(ctx, giant, giantSQL, size{}); err != nil {
		return err
	}
	peakOf := func(runs []cost) (peak int64) {
		for _, run := range runs {
			peak = max(peak, run.peakRSS)
		}
		return peak
	}
	n.memory = append(n.memory, nativeMemory{"mixed, 2 sessions", peakOf(n.full), maxPeakRSS})
	for _, on := range []struct {
		what, database string
		args           []string
		target         float64
	}{
		{"mixed, 6 sessions", mixed, []string{"--jobs", "6"}, maxPeakRSS + 4*16e6},
		{"10,000 tables", tables, nil, maxPeakRSS},
		{"one value of 1000 MB", giant, nil, maxPeakRSS},
	} {
		store := filepath.Join(b.out, "native")
		run, err := b.chunked(ctx, store, on.database, on.args...)
		if err := errors.Join(err, os.RemoveAll(store)); err != nil {
			return err
		}
		b.say("chunked, %s: %.1f s, peak memory %s", on.what, run.wall.Seconds(), megabytes(run.peakRSS))
		n.memory = append(n.memory, nativeMemory{on.what, run.peakRSS, on.target})
	}
	return nil
}

// markdown is the native engine's tables.
func (n *native) markdown() string {
	var out strings.Builder
	out.WriteString("\n| native engine (`--mode chunked --jobs 2`) | s | beside | s | ratio | size |\n|---|---|---|---|---|---|\n")
	row := func(what string, ours []cost, beside string, theirs []cost, target float64, size bool) {
		ratio := median(seconds(ours)) / median(seconds(theirs))
		ofSize := ""
		if size {
			ofSize = fmt.Sprintf("%.3f", median(stored(n.full))/median(stored(theirs)))
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %.3f of %.2f: %s | %s |\n", what, listed(seconds(ours)), beside,
			listed(seconds(theirs)), ratio, target, verdict(ratio, target), ofSize)
	}
	row("full", n.full, "the same COPY statements, 2 at a time, by psql into /dev/null", n.copies, 1.15, false)
	row("full", n.full, "`pg_dump -Fd -j2`", n.pgDump, 0.10, true)
	row("full", n.full, "`pg_dump -Fd -j2 -Z1`", n.pgDumpFast, 0.25, true)
	row("incremental, nothing changed", n.unchanged, "full", n.full, 0.15, false)
	row("incremental, 1 % of the rows appended", n.appended, "full", n.full, 0.25, false)
	row("binary values alone, incremental, nothing changed", n.blobsUnchanged, "full", n.blobsFull, 0.02, false)
	row("restore", n.restore, "`pg_restore -j2` of the -Z1 dump", n.pgRestore, 0.60, false)
	row("restore of `--copy-format binary`", n.binaryRestore, "`pg_restore -j2` of the -Z1 dump", n.pgRestore, 0.60, false)
	fmt.Fprintf(&out, "\nWith `--copy-format binary` a full run takes %s s and %.3f of the bytes.\n", listed(seconds(n.binary)),
		median(stored(n.binary))/median(stored(n.full)))
	rate := float64(n.blobBytes) / 1e6 / median(seconds(n.blobsFull))
	net := float64(n.blobBytes) / 1e6 / (median(seconds(n.blobsFull)) - median(seconds(n.empty)))
	fmt.Fprintf(&out, "\nBinary values alone: %.0f MB/s as a whole process, %.0f MB/s without the fixed costs (target 400 MB/s).\n", rate, net)
	fixed := median(seconds(n.empty))
	fmt.Fprintf(&out, "A run over a database with nothing in it takes %.2f s: preflight, globals, definitions, the manifest. Less that, an\n"+
		"incremental run with nothing changed takes %.3f of a full one on mixed, and %.3f on the binary values alone.\n", fixed,
		(median(seconds(n.unchanged))-fixed)/(median(seconds(n.full))-fixed),
		(median(seconds(n.blobsUnchanged))-fixed)/(median(seconds(n.blobsFull))-fixed))
	out.WriteString("\n| peak memory of the native engine | | target |\n|---|---|---|\n")
	for _, m := range n.memory {
		fmt.Fprintf(&out, "| %s | %s | %s: %s |\n", m.what, megabytes(m.peak), megabytes(int64(m.target)), verdict(float64(m.peak), m.target))
	}
	return out.String()
}

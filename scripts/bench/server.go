package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"dbbackup/internal/pgtest"
)

//go:embed mixed.sql
var mixedSQL string

//go:embed tables.sql
var tablesSQL string

// The databases. Small is a tenth of mixed.
const (
	mixed  = "mixed"
	small  = "mixed_small"
	tables = "tables"
)

// size is what mixed.sql is asked to make.
type size struct{ rows, blobs int }

var sizes = map[string]size{
	"full":  {6_000_000, 4000},
	"tenth": {600_000, 400},
}

// bench is one run: a server, and a folder beside it for what is written.
type bench struct {
	options
	cluster *pgtest.Cluster
	out     string
	log     io.Writer
	began   time.Time
}

func (b *bench) plan() {
	s := sizes[b.scale]
	b.say("plan, scale %s:", b.scale)
	b.say("  load %d rows and %d blobs", s.rows, s.blobs)
	for _, c := range b.contests() {
		b.say("  %d x dbbackup %s, %s, in turns", c.runs, c.mode, c.rival)
	}
	b.say("  peak memory: every mode on a tenth of that, and on 10,000 tables")
	b.say("  at full size about 45 minutes on two cores, at a tenth about 8")
}

// open runs a server that is set up as one is that matters: durable, and with
// memory of its own. Locks are for the 10,000 tables.
func (b *bench) open() error {
	var err error
	if b.out, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	b.cluster, err = pgtest.Open(
		pgtest.WithSetting("fsync", "on"),
		pgtest.WithSetting("full_page_writes", "on"),
		pgtest.WithSetting("shared_buffers", "1GB"),
		pgtest.WithSetting("max_wal_size", "8GB"),
		pgtest.WithSetting("min_wal_size", "6GB"), // or whichever restore comes first makes the WAL's files for the others
		pgtest.WithSetting("maintenance_work_mem", "256MB"),
		pgtest.WithSetting("max_locks_per_transaction", "512"),
	)
	if err != nil {
		return errors.Join(err, os.RemoveAll(b.out))
	}
	b.say("PostgreSQL %d runs", b.cluster.VersionNum/10000)
	return nil
}

func (b *bench) close() error {
	return errors.Join(b.cluster.Close(), os.RemoveAll(b.out))
}

// load makes a database and fills it with a script for psql. It returns the
// database's size.
func (b *bench) load(ctx context.Context, database, script string, s size) (bytes int64, err error) {
	b.say("load %s", database)
	if err := b.cluster.TryExec("postgres", "CREATE DATABASE "+pgtest.Quote(database)); err != nil {
		return 0, err
	}
	cmd := b.client(ctx, "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1",
		fmt.Sprintf("--set=rows=%d", s.rows), fmt.Sprintf("--set=blobs=%d", s.blobs), "--dbname="+database)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("load database %s: %w: %s", database, err, out)
	}
	return b.databaseBytes(ctx, database)
}

func (b *bench) databaseBytes(ctx context.Context, database string) (bytes int64, err error) {
	conn, err := b.cluster.Dial(ctx, database)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes)
	return bytes, err
}

// client is a client program of the server's own version.
func (b *bench) client(ctx context.Context, program string, args ...string) *exec.Cmd {
	return b.command(ctx, filepath.Join(b.cluster.BinDir, program), args...)
}

// command is a program that is connected to the server by its environment.
func (b *bench) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), b.cluster.Env()...)
	return cmd
}

// describe says what is measured, where.
func (b *bench) describe(ctx context.Context) ([]string, error) {
	bytes, err := b.load(ctx, mixed, mixedSQL, sizes[b.scale])
	if err != nil {
		return nil, err
	}
	lines := []string{
		fmt.Sprintf("Made by `BENCH_SCALE=%s make bench`, %s.", b.scale, time.Now().UTC().Format("2006-01-02")),
		fmt.Sprintf("Database: %s, %s with indexes.", mixed, megabytes(bytes)),
		fmt.Sprintf("Machine: %s, %d CPUs.", processor(), runtime.NumCPU()),
	}
	for _, of := range []*exec.Cmd{
		b.command(ctx, b.binary, "version"), b.client(ctx, "pg_dump", "--version"), b.command(ctx, "pigz", "--version"),
	} {
		line, err := firstLine(of)
		if err != nil {
			return nil, err
		}
		lines = append(lines, "- "+line)
	}
	return lines, nil
}

func firstLine(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w: %s", cmd, err, out)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line), nil
}

// processor is the model of the first CPU, as far as the kernel tells.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

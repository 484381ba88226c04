// Bench measures dbbackup beside what a user would take instead, on a throwaway
// server, and prints tables in Markdown to standard output. scripts/bench.sh
// builds and runs it.
//
//	bench --binary FILE [--scale full|tenth] [--plain-runs N] [--archive-runs N] [--native-runs N] [--native-only] [--stores-only] [--versitygw FILE] [--write FILE]
//
// Both sides are timed as whole processes, from the start of the first to the
// end of the last, taking turns: A B A B. They read the same server, whose data
// is in memory as far as it fits, and write to the same file system, below
// TMPDIR, where the server lies too. What they wrote is removed between runs.
//
// A missed target is printed and is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

var errUsage = errors.New("usage: bench --binary FILE [--scale full|tenth] [--plain-runs N] [--archive-runs N] [--native-runs N] [--native-only] [--stores-only] [--versitygw FILE] [--write FILE]")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// options is the command line.
type options struct {
	binary                 string // the dbbackup to measure
	scale                  string
	plainRuns, archiveRuns int
	nativeRuns             int
	nativeOnly             bool   // leave out what pg_dump does for dbbackup
	storesOnly             bool   // only remote stores and encryption
	versitygw              string // the S3 server; empty: no remote stores
	write                  string // the page that gets the tables; empty: none
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.binary, "binary", "", "the dbbackup to measure")
	flags.StringVar(&o.scale, "scale", "full", "full or tenth")
	flags.IntVar(&o.plainRuns, "plain-runs", 3, "turns in plain mode")
	flags.IntVar(&o.archiveRuns, "archive-runs", 2, "turns in custom and in directory mode")
	flags.IntVar(&o.nativeRuns, "native-runs", 3, "turns of the native engine")
	flags.BoolVar(&o.nativeOnly, "native-only", false, "measure the native engine only")
	flags.BoolVar(&o.storesOnly, "stores-only", false, "measure remote stores and encryption only")
	flags.StringVar(&o.versitygw, "versitygw", "", "the S3 server to measure with; empty: no remote stores")
	flags.StringVar(&o.write, "write", "", "put the tables into this page, between its marks")
	if err := flags.Parse(args); err != nil {
		return o, errors.Join(errUsage, err)
	}
	if _, known := sizes[o.scale]; !known || o.binary == "" || o.plainRuns < 1 || o.archiveRuns < 1 || o.nativeRuns < 1 || flags.NArg() > 0 {
		return o, errUsage
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	b := &bench{options: o, log: stderr, began: time.Now()}
	b.plan()
	if err := b.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	var r results
	if r.setting, err = b.describe(ctx); err != nil {
		return err
	}
	if o.versitygw != "" && !o.nativeOnly {
		if r.stores, err = b.measureStores(ctx); err != nil {
			return err
		}
	}
	if !o.storesOnly {
		if _, err := b.load(ctx, tables, tablesSQL, size{}); err != nil {
			return err
		}
		if r.native, err = b.measureNative(ctx); err != nil {
			return err
		}
	}
	if !o.nativeOnly && !o.storesOnly {
		if r.speed, err = b.measureSpeed(ctx); err != nil {
			return err
		}
		if r.memory, err = b.measureMemory(ctx, r.speed); err != nil {
			return err
		}
	}
	b.say("done")
	parts := r.parts()
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		text := parts[part]
		if _, err := io.WriteString(stdout, text); err != nil {
			return err
		}
		if o.write != "" {
			if err := replaceBetweenMarks(o.write, part, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// say prints a line of progress with the time since the start.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, "%7s  %s\n", time.Since(b.began).Round(time.Second), fmt.Sprintf(format, args...)) //nolint:errcheck // progress only
}

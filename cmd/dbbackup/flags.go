package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// env is the environment variable of a flag.
func env(flag string) []string {
	return []string{"DBBACKUP_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

func stringFlag(name, usage, value string, aliases ...string) cli.Flag {
	return &cli.StringFlag{Name: name, Aliases: aliases, Usage: usage, Value: value, EnvVars: env(name)}
}

func intFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.IntFlag{Name: name, Aliases: aliases, Usage: usage, EnvVars: env(name)}
}

func boolFlag(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

// listFlag has no environment variable: a list in one is ambiguous.
func listFlag(name, usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: name, Usage: usage}
}

// Flags of every command.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("config", "read defaults from this YAML `FILE` (default: "+defaultConfig+", where it exists)", ""),
		stringFlag("store", "keep backup sets in this `DIR`", "./backups"),
		stringFlag("log-format", "`FORMAT` of the log: text or json", "text"),
		boolFlag("quiet", "log warnings and errors only"),
		boolFlag("no-progress", "no progress bars, also on a terminal"),
	}
}

// connectionFlags have no DBBACKUP_* variables: libpq's PG* hold.
func connectionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "host", Aliases: []string{"h"}, Usage: "server's `HOST` name, address or socket folder (PGHOST)"},
		&cli.StringFlag{Name: "port", Aliases: []string{"p"}, Usage: "server's `PORT` (PGPORT)"},
		&cli.StringFlag{Name: "username", Aliases: []string{"U"}, Usage: "connect as this `ROLE` (PGUSER)"},
		&cli.StringFlag{Name: "dbname", Aliases: []string{"d"}, Usage: "maintenance `DATABASE`, a postgresql:// URI or keyword = value pairs"},
		stringFlag("pg-bin", "`DIR` with pg_dump, pg_restore, psql and pg_dumpall", ""),
	}
}

func jsonFlag() cli.Flag { return boolFlag("json", "print JSON, one object per line") }

func jobsFlag(usage string) cli.Flag { return intFlag("jobs", usage, "j") }

// captureFlags are those of both backup commands and of probe.
func captureFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("mode", "`MODE`: auto, custom, plain or directory", "auto"),
		stringFlag("plain-over", "auto takes plain for databases above this `SIZE`", "5GB"),
		&cli.IntFlag{Name: "compression", Aliases: []string{"Z"}, Usage: "gzip `LEVEL`, 0 to 6; higher ones are capped", Value: 6, EnvVars: env("compression")},
		jobsFlag("parallel `N` of pg_dump in directory mode (default: from the CPUs)"),
		stringFlag("timeout", "end the capture of a database after this `TIME`; 0 is never", "2h"),
		stringFlag("stall-timeout", "end a capture that has not moved for this `TIME`; 0 is never", "15m"),
		stringFlag("lock-timeout", "wait this `TIME` for the lock on each table; 0 is for ever", "60s"),
		boolFlag("skip-large-objects", "leave all large objects out, and say so"),
	}
}

func runFlags() []cli.Flag {
	return []cli.Flag{
		intFlag("parallel-databases", "capture `N` databases at a time (default: from the CPUs)"),
		intFlag("attempts", "capture a database at most `N` times while the server is unavailable (default: 3)"),
		boolFlag("no-space-check", "do not compare the estimated size with the free space"),
		stringFlag("metrics-file", "write Prometheus metrics to this `FILE` after the run", ""),
		stringFlag("before-hook", "run this `PROGRAM` first; the run fails when it does", ""),
		stringFlag("after-hook", "run this `PROGRAM` last, whatever the result, which it gets in its environment and as JSON", ""),
		jsonFlag(),
	}
}

func selectionFlags() []cli.Flag {
	return []cli.Flag{
		listFlag("table", "only tables that are called, or match, `PATTERN`; may be repeated"),
		listFlag("schema", "only tables in schemas that match `PATTERN`; may be repeated"),
	}
}

func exclusionFlags() []cli.Flag {
	return []cli.Flag{
		listFlag("exclude-table", "without the data of tables that match `PATTERN`; may be repeated"),
		listFlag("exclude-schema", "without the data of schemas that match `PATTERN`; may be repeated"),
	}
}

func restoreFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("set", "the `SET`: its id or the beginning of it, the path of its folder, or latest", "latest"),
		jobsFlag("parallel `N` of pg_restore (default: from the CPUs)"),
		boolFlag("clean", "replace databases that exist; needs --confirm, or a yes on the terminal"),
		boolFlag("confirm", "yes, replace them"),
		boolFlag("dry-run", "check everything, print what would be done, and write nothing"),
		boolFlag("no-analyze", "do not collect statistics after the restore"),
		listFlag("map-tablespace", "use tablespace B where the set says A: `A=B`; may be repeated"),
		jsonFlag(),
	}
}

func singleRestoreFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("target-db", "restore under this `NAME`", ""),
		boolFlag("data-only", "load data into the existing, empty tables of an existing database"),
		boolFlag("schema-only", "restore definitions without data"),
		boolFlag("no-owner", "everything belongs to the role that restores"),
		boolFlag("no-acl", "without privileges"),
		listFlag("map-role", "use role B where the set says A: `A=B`; may be repeated"),
	}
}

func join(sets ...[]cli.Flag) []cli.Flag {
	var all []cli.Flag
	for _, s := range sets {
		all = append(all, s...)
	}
	return all
}

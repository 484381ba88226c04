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

// onceFlag decides about one call. It has no environment variable: a
// forgotten DBBACKUP_CONFIRM must not replace a database.
func onceFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Aliases: aliases, Usage: usage}
}

// commonFlags are those of every command.
func commonFlags() []cli.Flag {
	return under("Everywhere", []cli.Flag{
		stringFlag("config", "read settings from this YAML `FILE` (default: "+defaultConfig+", where it exists)", ""),
		&cli.StringSliceFlag{Name: "store", Usage: "the `STORE` that holds the backup sets: a folder, or a URL; may be repeated, then each set goes to all of them (default: " + defaultStore + ")", EnvVars: env("store")},
		stringFlag("log-format", "`FORMAT` of the log: text or json", "text"),
		boolFlag("quiet", "log warnings and errors only"),
		boolFlag("no-progress", "no progress bars, also on a terminal"),
		helpFlag(),
	})
}

// connectionFlags have no DBBACKUP_* variables: libpq's PG* hold.
func connectionFlags() []cli.Flag {
	return under("Connection (as libpq: PGHOST, ~/.pgpass and the rest hold too)", []cli.Flag{
		&cli.StringFlag{Name: "host", Aliases: []string{"h"}, Usage: "the server's `HOST` name, address or socket folder"},
		&cli.StringFlag{Name: "port", Aliases: []string{"p"}, Usage: "the server's `PORT`"},
		&cli.StringFlag{Name: "username", Aliases: []string{"U"}, Usage: "connect as this `ROLE`"},
		&cli.StringFlag{Name: "dbname", Aliases: []string{"d"}, Usage: "maintenance `DATABASE`, a postgresql:// URI or keyword = value pairs"},
		onceFlag("no-password", "never ask for a password", "w"),
		onceFlag("password", "ask for the password first", "W"),
		pgBinFlag(),
	})
}

func pgBinFlag() cli.Flag {
	return stringFlag("pg-bin", "`DIR` with pg_dump, pg_restore, psql and pg_dumpall (default: found by version)", "")
}

func verifyFlags() []cli.Flag {
	return under("Verify", []cli.Flag{
		boolFlag("quick", "only look for every file, in its size"),
		boolFlag("drill", "also restore the set into a throwaway server, compare every row with what was captured, and check the indexes"),
		&cli.StringFlag{Name: "drill-target", Usage: "drill on this running server instead, a postgresql:// URI or keyword = value pairs, in databases that are dropped in the end: `CONNINFO`"},
		stringFlag("drill-dir", "make the throwaway server in this `DIR` (default: the system's for temporary files)", ""),
		jobsFlag("drill: restore and compare with `N` sessions (default: from the CPUs)"),
		pgBinFlag(),
	})
}

func jsonFlag() cli.Flag { return boolFlag("json", "print JSON, one object per line") }

func outputFlags() []cli.Flag { return under("Output", []cli.Flag{jsonFlag()}) }

func jobsFlag(usage string) cli.Flag { return intFlag("jobs", usage, "j") }

// captureFlags are those of both backup commands, of probe and of config.
func captureFlags() []cli.Flag {
	return under("Capture", []cli.Flag{
		stringFlag("mode", "`MODE`: auto, custom, plain, directory or chunked", "auto"),
		stringFlag("chunked-over", "auto takes chunked for databases above this `SIZE`, custom below", "5GB", "plain-over"),
		stringFlag("compression", "`CODEC`: a gzip level from 0 to 6, gzip:N, zstd:N (chunked mode) or none; auto is zstd:1 in chunked mode and gzip:6 in the others", "auto", "Z"),
		intFlag("jobs", "read by `N` sessions in chunked mode, by N processes of pg_dump in directory mode (default: from the CPUs)", "j", "parallel-tables"),
		stringFlag("chunk-size", "chunked mode: cut tables into parts of this `SIZE` at most", "1GB"),
		stringFlag("copy-format", "chunked mode: `FORMAT` of the rows: binary, which is less work for the server on both ways, or auto: binary only for tables with bytea, text for others", "auto"),
		boolFlag("incremental", "chunked mode: take what is proven unchanged from the newest usable set"),
		stringFlag("timeout", "end the capture of a database after this `TIME`; 0 is never", "2h"),
		stringFlag("stall-timeout", "end a capture that has not moved for this `TIME`; 0 is never", "15m"),
		stringFlag("lock-timeout", "wait this `TIME` for the lock on each table; 0 is for ever", "60s"),
		boolFlag("skip-large-objects", "leave all large objects out, and say so"),
	})
}

func runFlags() []cli.Flag {
	return under("Run", []cli.Flag{
		intFlag("parallel-databases", "capture `N` databases at a time (default: from the CPUs)"),
		stringFlag("max-rate", "chunked mode: read at most this `SIZE` per second; 0 is no limit", "0"),
		intFlag("max-connections", "chunked mode: open at most `N` sessions in all (default: no limit)"),
		stringFlag("max-replication-lag", "chunked mode: pause while a standby lags behind by more than this `SIZE` of WAL; 0 is no limit", "0"),
		stringFlag("max-snapshot-age", "do not begin while another session holds a snapshot for longer than this `TIME`; 0 is no limit", "0"),
		boolFlag("yield-to-ddl", "chunked mode: give way to sessions that wait for our locks, and go on after them"),
		onceFlag("salvage", "chunked mode: leave out what the server cannot read of damaged tables, and list it; exit code 3"),
		intFlag("attempts", "capture a database at most `N` times while the server is unavailable (default: 3)"),
		&cli.IntFlag{Name: "store-quorum", Usage: "with several stores: succeed when `N` of them have the whole set", Value: 1, EnvVars: env("store-quorum")},
		stringFlag("store-patience", "with several stores: leave one behind that keeps the others waiting for this `TIME`", "1m"),
		boolFlag("no-space-check", "do not compare the estimated size with the free space"),
		metricsFlag(),
		stringFlag("before-hook", "run this `PROGRAM` first; the run does not begin when it fails", ""),
		stringFlag("after-hook", "run this `PROGRAM` last, whatever the result, which it gets in its environment and as JSON", ""),
		stringFlag("hook-timeout", "end a hook after this `TIME`; 0 is never", "10m"),
	})
}

func metricsFlag() cli.Flag {
	return stringFlag("metrics-file", "write Prometheus metrics to this `FILE` after the run", "")
}

func excludeDatabasesFlags() []cli.Flag {
	return under("Selection", []cli.Flag{listFlag("exclude-db", "leave out databases that match `PATTERN`; may be repeated")})
}

func selectionFlags() []cli.Flag {
	return under("Selection", []cli.Flag{
		listFlag("table", "only tables that are called, or match, `PATTERN`; may be repeated"),
		listFlag("schema", "only tables in schemas that match `PATTERN`; may be repeated"),
	})
}

func exclusionFlags() []cli.Flag {
	return under("Selection", []cli.Flag{
		listFlag("exclude-table", "without the data of tables that match `PATTERN`; may be repeated"),
		listFlag("exclude-schema", "without the data of schemas that match `PATTERN`; may be repeated"),
	})
}

func restoreFlags() []cli.Flag {
	return under("Restore", []cli.Flag{
		stringFlag("set", "the `SET`: its id or the beginning of it, the path of its folder, or latest", "latest"),
		onceFlag("dry-run", "check everything, print what would be done, and write nothing"),
		onceFlag("clean", "replace databases that exist; needs --confirm, or a yes on the terminal"),
		onceFlag("confirm", "yes, replace them"),
		onceFlag("salvage", "of a damaged set, restore what is sound, and say what is lost"),
		jobsFlag("parallel `N` of pg_restore (default: from the CPUs)"),
		boolFlag("no-analyze", "do not collect statistics after the restore"),
		listFlag("map-tablespace", "use tablespace B where the set says A: `A=B`; may be repeated"),
	})
}

func singleRestoreFlags() []cli.Flag {
	return under("Restore", []cli.Flag{
		&cli.StringFlag{Name: "target-db", Usage: "restore under this `NAME`"},
		onceFlag("data-only", "load data into the existing, empty tables of an existing database"),
		onceFlag("schema-only", "restore definitions without data"),
		onceFlag("no-owner", "everything belongs to the role that restores"),
		onceFlag("no-acl", "without privileges"),
		listFlag("map-role", "use role B where the set says A: `A=B`; may be repeated"),
	})
}

func join(sets ...[]cli.Flag) []cli.Flag {
	var all []cli.Flag
	for _, s := range sets {
		all = append(all, s...)
	}
	return all
}

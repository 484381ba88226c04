package pgtool

import (
	"dbbackup/internal/child"
)

// The programs' names, as Command takes them.
const (
	PgDump    = "pg_dump"
	PgDumpAll = "pg_dumpall"
	PgRestore = "pg_restore"
	Psql      = "psql"
)

// Tools are the client programs of one version, by their absolute paths. In
// what All returns, a program that is not installed is empty.
type Tools struct {
	Dir     string // where the program stands that was searched for
	Version Version
	Dump    string
	DumpAll string
	Restore string
	Psql    string
}

// Command is a run of one of the four programs. Arguments must not hold
// secrets; env is complete (Environ makes it). Pass -w: a child cannot ask for
// a password on the terminal. The command for a name that is none of the four
// does not start.
func (t Tools) Command(tool string, args, env []string) child.Command {
	c := child.Command{Name: tool, Args: args, Env: env}
	if path := t.path(tool); path != nil {
		c.Path = *path
	}
	return c
}

// path is where the named program's path is kept.
func (t *Tools) path(tool string) *string {
	switch tool {
	case PgDump:
		return &t.Dump
	case PgDumpAll:
		return &t.DumpAll
	case PgRestore:
		return &t.Restore
	case Psql:
		return &t.Psql
	}
	return nil
}

// names are the four programs.
func names() []string { return []string{PgDump, PgDumpAll, PgRestore, Psql} }

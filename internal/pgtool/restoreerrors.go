package pgtool

import (
	"regexp"
	"strings"
)

// ObjectError is something that a restore complained about.
type ObjectError struct {
	Object  string // what it was about, as far as the program says; may be empty
	Message string // the server's message, with its detail

	ForeignKey bool // a foreign key, or the comment on one
}

func (e ObjectError) String() string {
	if e.Object == "" {
		return e.Message
	}
	return e.Object + ": " + e.Message
}

var (
	// tocLine precedes an error with --verbose only, and only when the entry is
	// another one than that of the error before (pg_backup_archiver.c,
	// warn_or_exit_horribly). The owner stands last.
	tocLine       = regexp.MustCompile(`^pg_restore: from TOC entry \d+; \d+ \d+ (.+) \S*$`)
	restoreError  = regexp.MustCompile(`^(?:pg_restore|psql): (?:error|fatal): (.*)$`)
	copyError     = regexp.MustCompile(`^COPY failed for table ("(?:[^"]|"")+"): (.*)$`)
	psqlError     = regexp.MustCompile(`^psql:(.*:\d+): (?:ERROR|FATAL|PANIC): +(.*)$`)
	psqlStatement = regexp.MustCompile(`^psql:.*:\d+: STATEMENT: +(.*)$`)
	serverMessage = regexp.MustCompile(`^(?:ERROR|FATAL|PANIC): +(.*)$`)
	detailLine    = regexp.MustCompile(`^DETAIL: +(.*)$`)
)

// ParseRestoreErrors finds the errors in what pg_restore or psql wrote to
// standard error, in order. It is for naming them only, never for deciding
// whether a restore succeeded. pg_restore names the entry of its archive with
// --verbose; without, the object is the first line of the command that failed.
// psql names the line of its input when that was given with --file (also as
// "--file -"), and with --echo-errors the command, too.
func ParseRestoreErrors(stderr string) []ObjectError {
	var p restoreParser
	for line := range strings.Lines(stderr) {
		p.line(strings.TrimRight(line, "\r\n"))
	}
	return p.found
}

// restoreParser reads one line at a time.
type restoreParser struct {
	found []ObjectError
	entry string // the archive entry that errors are about, once one was named
	open  bool   // the last error may still get its detail and command
}

func (p *restoreParser) line(line string) {
	if m := tocLine.FindStringSubmatch(line); m != nil {
		p.entry, p.open = m[1], false
		return
	}
	if e, ok := p.parse(line); ok {
		p.found, p.open = append(p.found, e), true
		return
	}
	if m := psqlStatement.FindStringSubmatch(line); m != nil && len(p.found) > 0 {
		e := &p.found[len(p.found)-1]
		e.Object, p.open = firstLine(m[1])+" ("+e.Object+")", false
		return
	}
	if strings.HasPrefix(line, "pg_restore: ") || strings.HasPrefix(line, "psql:") {
		p.open = false
	}
	if p.open {
		p.more(&p.found[len(p.found)-1], line)
	}
}

// parse reads a line that begins an error.
func (p *restoreParser) parse(line string) (ObjectError, bool) {
	if m := psqlError.FindStringSubmatch(line); m != nil {
		return ObjectError{Object: m[1], Message: m[2]}, true
	}
	if m := serverMessage.FindStringSubmatch(line); m != nil {
		return ObjectError{Message: m[1]}, true
	}
	m := restoreError.FindStringSubmatch(line)
	if m == nil {
		return ObjectError{}, false
	}
	e := ObjectError{Object: p.entry, Message: m[1]}
	if c := copyError.FindStringSubmatch(e.Message); c != nil {
		e.Message = c[2]
		if e.Object == "" {
			e.Object = "TABLE DATA " + c[1]
		}
	}
	e.Message = strings.TrimPrefix(e.Message, "could not execute query: ")
	if s := serverMessage.FindStringSubmatch(e.Message); s != nil {
		e.Message = s[1]
	}
	return e, true
}

// more reads a line that belongs to the error before it.
func (p *restoreParser) more(e *ObjectError, line string) {
	if m := detailLine.FindStringSubmatch(line); m != nil {
		e.Message += " (" + m[1] + ")"
		return
	}
	if command, ok := strings.CutPrefix(line, "Command was: "); ok {
		p.open = false // what follows is the command's
		if e.Object == "" {
			e.Object = firstLine(command)
		}
	}
}

// firstLine shortens the first line of a command to what names its object.
func firstLine(command string) string {
	return strings.TrimSuffix(strings.TrimRight(command, " ("), ";")
}

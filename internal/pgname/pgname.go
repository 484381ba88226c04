package pgname

import (
	"fmt"
	"strings"
)

// Ident quotes a name as an SQL identifier, always with quotes.
func Ident(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// Qualified quotes schema.name.
func Qualified(schema, name string) string { return Ident(schema) + "." + Ident(name) }

// Literal quotes a string as an SQL literal that reads the same whatever
// standard_conforming_strings says.
func Literal(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if !strings.Contains(s, `\`) {
		return quoted
	}
	return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
}

// DumpPattern quotes a name as a pattern of pg_dump's -t, -n and
// --exclude-table-data that matches this name only: inside double quotes
// PostgreSQL's tools fold no case and know no wildcard
// (PostgreSQL manual, psql, "Patterns").
func DumpPattern(schema, name string) string { return Qualified(schema, name) }

// File turns a database's name into a file name without extension: letters,
// digits, underscore, hyphen and inner dots stay, every other byte becomes
// %XX. Two names never share a file name.
func File(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
			b.WriteByte(c)
		case (c == '-' || c == '.') && i > 0 && i < len(name)-1:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Printable returns a name as it can be shown in a message of one line: as it
// is when it is plain, quoted with escapes when not.
func Printable(name string) string {
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfffd {
			return fmt.Sprintf("%q", name)
		}
	}
	if name == "" || strings.TrimSpace(name) != name {
		return fmt.Sprintf("%q", name)
	}
	return name
}

package zoo

import (
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// HostileDatabases returns valid database names that mean something else to a
// tool which takes them for an option, a connection string, a path, a pattern
// or a shell word.
func HostileDatabases() []string {
	return []string{
		"-Fp",
		"--help",
		"a=b",
		"host=127.0.0.1 dbname=postgres",
		"postgresql://x/y",
		"../../x",
		"/etc/passwd",
		".",
		"..",
		"line\nfeed",
		"carriage\rreturn",
		"tab\there",
		" leading and trailing ",
		`quo"te'both`,
		`back\slash`,
		"$(touch pwned)",
		"`touch pwned`",
		"; touch pwned",
		"*?[x]",
		"%s%n",
		"Case",
		"case",
		"null",
		strings.Repeat("日本語_", 6) + "abc", // 63 bytes, the longest name
	}
}

// HostileSettings makes sessions of a role, and all sessions in a database,
// print values in odd ways and give up early (T54). Both are names of existing
// objects. The role must not be a superuser's only way in: the settings include
// timeouts of milliseconds, which pgtest's own sessions override.
func HostileSettings(tb testing.TB, c *pgtest.Cluster, db, role string) {
	tb.Helper()
	settings := []string{
		"datestyle = 'SQL, DMY'",
		"intervalstyle = 'iso_8601'",
		"extra_float_digits = -15",
		"bytea_output = 'escape'",
		"search_path = 'nowhere'",
		"client_encoding = 'LATIN1'",
		"timezone = 'Asia/Kathmandu'",
		"default_transaction_read_only = 'on'",
		"default_transaction_isolation = 'serializable'",
		"standard_conforming_strings = 'off'",
		"xmlbinary = 'hex'",
		"synchronize_seqscans = 'on'",
		"quote_all_identifiers = 'on'",
		"statement_timeout = '200ms'",
		"lock_timeout = '1ms'",
		"idle_in_transaction_session_timeout = '100ms'",
	}
	for _, s := range settings {
		c.Exec(tb, "postgres", "ALTER DATABASE "+pgtest.Quote(db)+" SET "+s)
		c.Exec(tb, "postgres", "ALTER ROLE "+pgtest.Quote(role)+" SET "+s)
	}
}

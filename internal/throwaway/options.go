package throwaway

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgtool"
)

// Options of a server.
type Options struct {
	Search pgtool.Search // where to look for the server's programs
	BinDir string        // the folder that holds them; used or refused, and Search is not
	Major  int           // the major version, e.g. 15

	// Superuser is the bootstrap superuser's name; empty: postgres. A restore
	// of the roles of another cluster expects that of its source. initdb
	// fails for names that begin with pg_ or hold one of "$'\ (extension.c).
	Superuser string
	// Dir is the folder that the server's folder is made in, and where folders
	// that killed processes left are looked for; empty: os.TempDir.
	Dir string
	// Env is this process's environment. The server gets it without the
	// variables that PostgreSQL and the C library's locales would read.
	Env []string
	// Settings are configuration parameters in addition to, or instead of, the
	// package's own.
	Settings map[string]string
	// InitdbArgs come after the package's own, so that they win.
	InitdbArgs []string
}

// Validate says what is wrong with the options, as a fault.Usage.
func (o Options) Validate() error {
	if o.Major < 10 {
		return fault.New(fault.Usage, "", "throwaway server: major version %d is not supported", o.Major)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		if !settingName.MatchString(name) || strings.ContainsAny(o.Settings[name], "\n\r\x00") {
			return fault.New(fault.Usage, "", "throwaway server: setting %q is not a name and a value of one line", name)
		}
		if _, ours := reserved[strings.ToLower(name)]; ours {
			return fault.New(fault.Usage, "", "throwaway server: setting %s is the server's own", name)
		}
	}
	return nil
}

func (o Options) superuser() string { return cmp.Or(o.Superuser, "postgres") }

// parent is the absolute path of the folder that the server's is made in.
func (o Options) parent() (string, error) {
	return filepath.Abs(cmp.Or(o.Dir, os.TempDir()))
}

// environ is Env without what libpq, the server or initdb would take from it.
func (o Options) environ() []string {
	return slices.DeleteFunc(pgtool.Environ(o.Env, nil), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "LC_") && name != "LC_ALL"
	})
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.$]*$`)

// reserved are the settings that Params and Close rely on.
var reserved = map[string]struct{}{
	"data_directory": {}, "hba_file": {}, "ident_file": {}, "external_pid_file": {},
	"listen_addresses": {}, "port": {}, "unix_socket_directories": {}, "unix_socket_group": {},
	"unix_socket_permissions": {}, "logging_collector": {}, "log_destination": {},
}

// defaults are fast, bounded in memory, and roomy where a restore of thousands
// of tables needs it.
func defaults() map[string]string {
	return map[string]string{
		"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
		"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "4GB", "checkpoint_timeout": "1h",
		"autovacuum": "off", "max_logical_replication_workers": "0", "restart_after_crash": "off",
		"shared_buffers": "128MB", "maintenance_work_mem": "128MB",
		"max_connections": "100", "max_locks_per_transaction": "1024",
		// In files of the data folder: a container's /dev/shm is small, and what
		// a killed server leaves there nobody removes.
		"dynamic_shared_memory_type": "mmap",
		// LOG, FATAL and PANIC: a client is told of its own errors, whose
		// statements and details hold data and passwords.
		"log_min_messages": "log", "log_min_error_statement": "panic", "log_checkpoints": "off",
	}
}

// configuration is what postgresql.conf gets at its end, where it wins.
func (o Options) configuration(socketDir string) string {
	settings := defaults()
	for name, value := range o.Settings {
		settings[strings.ToLower(name)] = value
	}
	settings["listen_addresses"], settings["unix_socket_directories"] = "", socketDir
	settings["port"] = port
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, settingEscape.Replace(settings[name]))
	}
	return b.String()
}

var settingEscape = strings.NewReplacer(`\`, `\\`, `'`, `''`)
